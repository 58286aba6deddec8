//! The archive in a bucket: as whole as one in a folder, and sagas run on when the object store is away, slow
//! or answers nonsense.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::archive::{
    archived, dies_at_each_point, done, each_is_there_once, json, settled_in, start_orders, stored,
    told,
};
use crate::place::{Host, Place, agent, stderr, stdout};
use crate::s3_server::{ARCHIVE, S3Server, SECRET};

/// How long an answer may take that says that the archive cannot be reached: all requests of a saga have
/// 20 s together, and the machine may be busy.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(40);

type Environment<'e> = [(&'static str, &'e str)];

fn verify(place: &Place, environment: &Environment<'_>) -> std::process::Output {
    let verify = ["store", "verify", "data/amends.db", "--archive", ARCHIVE];
    place.command(&verify).envs(environment.iter().copied()).output().unwrap()
}

/// The problem that a request gets.
fn problem(host: &Host, path: &str) -> (u16, Value) {
    let mut answer = agent().get(host.url(path)).call().unwrap();
    (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
}

/// An archived saga cannot be reached, and the answer says where it is and does not repeat the secret.
fn is_unreachable(host: &Host, id: &str, what: &str) -> String {
    let began = Instant::now();
    let (status, told) = problem(host, &format!("/v1/sagas/{id}"));
    assert_eq!((status, &told["code"]), (503, &"archive_unreachable".into()), "{what}: {told}");
    assert!(began.elapsed() < ANSWER_TIME_MAX, "{what}: {:?}", began.elapsed());
    let detail = told["detail"].as_str().unwrap();
    assert!(detail.contains(ARCHIVE) && !detail.contains(SECRET), "{what}: {detail}");
    detail.to_owned()
}

#[test]
fn a_move_to_a_bucket_that_dies_loses_and_doubles_nothing() {
    let Some(mut server) = S3Server::new("moves to a bucket") else { return };
    server.start();
    let endpoint = server.endpoint();
    let environment = S3Server::environment_with(&endpoint);
    let (place, ids) = settled_in(ARCHIVE, &environment);
    dies_at_each_point((&place, &ids), &environment, ARCHIVE);

    let host = place.run_with_env(&environment);
    let pass = json(&place.amends(&["store", "archive", "-o", "json"]));
    assert!(pass["sagas"].as_u64().unwrap() > 0 && pass["unreadable"] == 0, "{pass}");
    assert_eq!(stored(&host), Vec::<String>::new());
    each_is_there_once(&place, &host, &ids, "at the end");
    // Every object has a row, and nothing is left on this machine: neither a draft nor a folder.
    let stats = json(&place.amends(&["store", "stats", "-o", "json"]));
    assert_eq!(stats["archived"]["segments"], server.objects().len());
    let mut files = std::fs::read_dir(place.path("data")).unwrap().flatten();
    assert!(!files.any(|file| file.file_name().to_string_lossy().contains("part")));
    assert!(!place.path("archive").exists());
    // What another store wrote there stays.
    server.write("segment-of-another.amends.zst", b"not ours");
    let id = ids[3].as_str();
    let before = told(&host, &ids);
    assert_eq!(host.stop(), Some(0));

    // A bring-back that dies.
    let point = [&environment[..], &[("FAILPOINTS", "store.archive.brought_back=return")]].concat();
    let host = place.spawn_with_env(&point);
    host.until("it is ready", || place.amends(&["list", "--limit", "1"]).status.success());
    assert!(!place.amends(&["store", "archive", "--bring-back", id]).status.success());
    assert!(host.aborted(ANSWER_TIME_MAX).is_some(), "it was not hit");
    let host = place.run_with_env(&environment);
    assert_eq!(stored(&host), [id]);
    done(&place.amends(&["store", "archive"]));
    assert_eq!((stored(&host), told(&host, &ids)), (Vec::new(), before));
    assert!(server.objects().contains(&"segment-of-another.amends.zst".to_owned()));
    let log = host.stop_logged().1.join("\n");
    assert!(!log.contains(SECRET));
    done(&verify(&place, &environment));
}

/// The archive is away for a while: what is archived cannot be read, everything else goes on, and the host
/// archives by itself when the bucket is back.
#[test]
fn sagas_run_on_while_the_bucket_is_away() {
    let Some(mut server) = S3Server::new("a bucket that is away") else { return };
    server.start();
    let endpoint = server.endpoint();
    let environment = S3Server::environment_with(&endpoint);
    let (place, ids) = settled_in(ARCHIVE, &environment);
    let host = place.run_with_env(&environment);
    let before = told(&host, &ids);
    done(&place.amends(&["store", "archive"]));
    assert_eq!(archived(&place).len(), ids.len());
    server.stop();

    let detail = is_unreachable(&host, &ids[0], "away");
    assert!(detail.contains("refused"), "{detail}");
    // The list is in the database, and so is what a start with a key is answered from.
    assert_eq!(archived(&place).len(), ids.len());
    assert_eq!(start_orders(&place).len(), ids.len());
    let order = crate::place::example().join("order.json");
    let start = ["start", "order-fulfillment", "--input", order.to_str().unwrap(), "--wait"];
    done(&place.amends(&start));
    let refused = place.amends(&["store", "archive"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains(ARCHIVE), "{}", stderr(&refused));
    assert_eq!(stored(&host).len(), 1);
    assert_eq!(host.stop(), Some(0));
    let found = verify(&place, &environment);
    assert_eq!(found.status.code(), Some(1));
    assert!(stdout(&found).contains("the archive cannot be reached"), "{}", stdout(&found));

    // It says so once, and goes on by itself.
    let host = place.run_with_env(&environment);
    let says = |what: &str| host.log().iter().filter(|line| line.contains(what)).count();
    host.until("it says that it cannot archive", || says("sagas cannot be archived") > 0);
    server.start();
    host.until("it archives again", || says("sagas are archived again") > 0);
    assert_eq!((stored(&host), told(&host, &ids)), (Vec::new(), before));
    assert_eq!(says("sagas cannot be archived"), 1);
    assert_eq!(host.stop(), Some(0));
    done(&verify(&place, &environment));
}

/// What a server of the test does with each connection, after it has read the head of the request.
type Answer = fn(&mut TcpStream) -> std::io::Result<()>;

/// A server on this machine that gives one answer. Returns its address.
fn nonsense(answer: Answer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    // It ends with the process.
    drop(std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            drop(std::thread::spawn(move || {
                let mut stream = stream;
                let mut head = [0; 8192];
                let _ = stream.read(&mut head).and_then(|_| answer(&mut stream));
            }));
        }
    }));
    endpoint
}

#[test]
fn a_server_that_is_slow_refuses_or_answers_nonsense_is_named() {
    let Some(mut server) = S3Server::new("servers that answer nonsense") else { return };
    server.start();
    let endpoint = server.endpoint();
    let environment = S3Server::environment_with(&endpoint);
    let (place, ids) = settled_in(ARCHIVE, &environment);
    let host = place.run_with_env(&environment);
    done(&place.amends(&["store", "archive"]));
    assert_eq!(host.stop(), Some(0));

    let page = |stream: &mut TcpStream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")
    };
    let slow_down = |stream: &mut TcpStream| {
        stream.write_all(
            b"HTTP/1.1 503 Slow Down\r\ncontent-length: 72\r\nconnection: close\r\n\r\n\
              <Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>",
        )
    };
    let endless = |stream: &mut TcpStream| {
        stream.write_all(
            b"HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 40-103/104\r\netag: \"1\"\r\n\
              last-modified: Mon, 30 Nov 2026 00:00:00 GMT\r\ntransfer-encoding: chunked\r\n\r\n",
        )?;
        loop {
            stream.write_all(b"10\r\n0123456789abcdef\r\n")?;
        }
    };
    let cut = |stream: &mut TcpStream| {
        stream.write_all(
            b"HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 40-103/104\r\netag: \"1\"\r\n\
              last-modified: Mon, 30 Nov 2026 00:00:00 GMT\r\ncontent-length: 64\r\n\r\n0123",
        )
    };
    let silent = |stream: &mut TcpStream| {
        std::thread::sleep(3 * ANSWER_TIME_MAX);
        stream.write_all(b"too late")
    };
    let answers: [(&str, Answer); 5] = [
        ("a page", page),
        ("slow down", slow_down),
        ("endless", endless),
        ("cut off", cut),
        ("silent", silent),
    ];
    for (what, answer) in answers {
        let endpoint = nonsense(answer);
        let host = place.run_with_env(&S3Server::environment_with(&endpoint));
        let detail = is_unreachable(&host, &ids[0], what);
        assert!(what != "slow down" || detail.contains("SlowDown: Reduce"), "{detail}");
        assert!(host.memory_peak_mib() < 1_000, "{what}: {} MiB", host.memory_peak_mib());
        // Stopping waits for nobody who does not answer.
        assert_eq!(host.stop(), Some(0), "{what}");
    }

    // Credentials that are not let in, and a bucket that is not there.
    let wrong = [&environment[..], &[("AWS_SECRET_ACCESS_KEY", "wrong-secret")]].concat();
    let host = place.run_with_env(&wrong);
    let detail = is_unreachable(&host, &ids[0], "a wrong secret");
    assert!(detail.contains("SignatureDoesNotMatch") && !detail.contains("wrong-secret"));
    assert_eq!(host.stop(), Some(0));
    let elsewhere = ARCHIVE.replace("amends-test", "amends-test-2");
    let host =
        place.run_with_env(&[&environment[..], &[("AMENDS_STORE_ARCHIVE", &elsewhere)]].concat());
    let (status, told) = problem(&host, &format!("/v1/sagas/{}", ids[0]));
    assert_eq!((status, &told["code"]), (503, &"archive_unreachable".into()), "{told}");
    assert!(told["detail"].as_str().unwrap().contains("NoSuchBucket"), "{told}");
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn an_object_that_was_spoiled_is_named() {
    let Some(mut server) = S3Server::new("spoiled objects") else { return };
    server.start();
    let endpoint = server.endpoint();
    let environment = S3Server::environment_with(&endpoint);
    let (place, ids) = settled_in(ARCHIVE, &environment);
    let host = place.run_with_env(&environment);
    let before = told(&host, &ids);
    done(&place.amends(&["store", "archive"]));
    assert_eq!(host.stop(), Some(0));
    done(&verify(&place, &environment));
    let objects = server.objects();
    let [name] = &objects[..] else { panic!("{objects:?}") };
    let sound = server.read(name);

    let mut flipped = sound.clone();
    flipped[1_000] ^= 1;
    let cut = &sound[..sound.len() / 2];
    for (what, spoiled, says) in [
        ("flipped", &flipped[..], "frame 1"),
        ("cut off", cut, "cut off"),
        ("tiny", &sound[..20], "cut off"),
        ("empty", &[], "cut off"),
    ] {
        server.write(name, spoiled);
        let found = verify(&place, &environment);
        assert_eq!(found.status.code(), Some(1), "{what}");
        let found = stdout(&found);
        assert!(found.contains(&format!("{ARCHIVE}/{name}: ")) && found.contains(says), "{found}");
        let host = place.run_with_env(&environment);
        let read = ids.iter().step_by(97).map(|id| problem(&host, &format!("/v1/sagas/{id}")));
        let unread: Vec<_> = read.filter(|(status, _)| *status != 200).collect();
        let is_named = |(status, told): &(u16, Value)| {
            *status == 500
                && told["code"] == "archive_unreadable"
                && told["detail"].as_str().unwrap().contains(name)
        };
        assert!(!unread.is_empty() && unread.iter().all(is_named), "{what}: {unread:?}");
        assert_eq!(host.stop(), Some(0));
    }
    server.remove(name);
    let found = stdout(&verify(&place, &environment));
    assert!(found.contains(&format!("{name}: there is no such object")), "{found}");

    // Put back, it is read again without a start.
    let host = place.run_with_env(&environment);
    let (status, missing) = problem(&host, &format!("/v1/sagas/{}", ids[0]));
    assert_eq!((status, &missing["code"]), (500, &"archive_unreadable".into()), "{missing}");
    let remedy = missing["remedy"].as_str().unwrap();
    assert!(remedy.contains("only the sagas in this file cannot be read"), "{remedy}");
    server.write(name, &sound);
    assert_eq!(told(&host, &ids), before);
    assert_eq!(host.stop(), Some(0));
}
