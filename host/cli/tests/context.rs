//! Contexts: which host a verb talks to, and that a token reaches no other host than its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};
use tempfile::TempDir;

/// What a host is asked: the value of `authorization`, and that of `amends-user`.
type Asked = (Option<String>, Option<String>);

/// A host that answers `GET /v1/me` with this status. Returns its address, and who asks.
fn host(status: u16) -> (String, Receiver<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, receiver) = channel();
    let body = if status == 200 {
        json!({
            "who": "ada@127.0.0.1", "access_control": true, "roles": ["viewer"],
            "permissions": ["read"], "namespaces": ["default"], "expires_at": null,
        })
    } else {
        json!({
            "type": "urn:amends:problem:token_missing", "title": "Unauthorized", "status": status,
            "code": "token_missing", "detail": "no token came",
        })
    };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut token, mut user) = (None, None);
            for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                let line = line.unwrap();
                match line.split_once(": ") {
                    Some(("authorization", value)) => token = Some(value.to_owned()),
                    Some(("amends-user", value)) => user = Some(value.to_owned()),
                    None if line.is_empty() => break,
                    Some(_) | None => {}
                }
            }
            // A test that has its answer looks at no more.
            let _ = sender.send((token, user));
            let text = body.to_string();
            let length = text.len();
            let head = "content-type: application/json\r\nconnection: close\r\n";
            let answer =
                format!("HTTP/1.1 {status} Told\r\n{head}content-length: {length}\r\n\r\n{text}");
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    (address, receiver)
}

/// A user, with a file of contexts.
struct User {
    home: TempDir,
}

impl User {
    fn new(contexts: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join(".config/amends")).unwrap();
        let user = Self { home };
        fs::write(user.file("config.toml"), contexts).unwrap();
        user
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(".config/amends").join(name)
    }

    /// Writes a file that others may read or not.
    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.file(name), text).unwrap();
        fs::set_permissions(self.file(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Runs the binary with these variables and nothing else.
    fn amends(
        &self,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
        command.args(arguments).env_clear().env("HOME", self.home.path());
        let Output { status, stdout, stderr } =
            command.envs(variables.iter().copied()).output().unwrap();
        (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }
}

fn sent(token: Option<&str>, user: Option<&str>) -> Asked {
    (token.map(|token| format!("Bearer {token}")), user.map(str::to_owned))
}

#[test]
fn the_nearest_word_says_which_host_and_a_token_goes_to_its_own_host_alone() {
    let ((one, at_one), (two, at_two), (three, at_three)) = (host(200), host(200), host(200));
    let user = User::new(&format!(
        "current_context = \"one\"\n\
         [context.one]\nhost = \"{one}\"\ntoken = {{ file = \"one.token\" }}\nuser = \"ada\"\n\
         [context.two]\nhost = \"http://{two}/\"\ntoken = {{ env = \"TWO\" }}\n"
    ));
    user.write("one.token", "amends_one\n", 0o600);
    let asks = |arguments: &[&str], variables: &[(&str, &str)]| {
        let (code, _, stderr) = user.amends(&[arguments, &["me"]].concat(), variables);
        assert_eq!(code, Some(0), "{arguments:?} {variables:?}: {stderr}");
    };
    let (three, two_has) = (three.as_str(), ("TWO", "amends_two"));
    asks(&[], &[]);
    assert_eq!(at_one.recv().unwrap(), sent(Some("amends_one"), Some("ada")));
    asks(&[], &[("AMENDS_USER", "grace"), ("AMENDS_TOKEN", "amends_mine")]);
    assert_eq!(at_one.recv().unwrap(), sent(Some("amends_mine"), Some("grace")));
    asks(&[], &[two_has, ("AMENDS_CONTEXT", "two"), ("USER", "eve")]);
    assert_eq!(at_two.recv().unwrap(), sent(Some("amends_two"), Some("eve")));
    asks(&["--context", "two"], &[two_has, ("AMENDS_CONTEXT", "one")]);
    assert_eq!(at_two.recv().unwrap(), sent(Some("amends_two"), None));
    // The address of its own host, in another spelling.
    asks(&["--host", &format!("http://{one}")], &[]);
    assert_eq!(at_one.recv().unwrap(), sent(Some("amends_one"), Some("ada")));
    // Another host gets neither the token nor the user.
    asks(&["--host", three], &[("USER", "eve")]);
    assert_eq!(at_three.recv().unwrap(), sent(None, Some("eve")));
    asks(&[], &[("AMENDS_HOST", three)]);
    assert_eq!(at_three.recv().unwrap(), sent(None, None));
    asks(&["--host", three, "--context", "two"], &[two_has]);
    assert_eq!(at_three.recv().unwrap(), sent(None, None));

    // The flag and the variable say different things: none of them is right by itself.
    let both = user.amends(&["--context", "two", "me"], &[two_has, ("AMENDS_HOST", three)]);
    assert_eq!(both.0, Some(2), "{}", both.2);
    assert!(both.2.contains("unset AMENDS_HOST"), "{}", both.2);
    for asked in [&at_one, &at_two, &at_three] {
        assert!(asked.try_recv().is_err(), "another request came");
    }
}

#[test]
fn a_token_that_was_not_sent_is_told_with_the_refusal() {
    let (address, asked) = host(401);
    let user = User::new(
        "current_context = \"one\"\n[context.one]\nhost = \"https://one.example\"\n\
         token = { file = \"one.token\" }\n",
    );
    user.write("one.token", "amends_one", 0o600);
    let (code, _, stderr) = user.amends(&["--host", &address, "me"], &[]);
    assert_eq!(code, Some(3), "{stderr}");
    assert_eq!(asked.recv().unwrap(), sent(None, None));
    let told = "the token of the context `one` was not sent, because it is for https://one.example";
    assert!(stderr.contains(told), "{stderr}");
    let (_, _, stderr) = user.amends(&["--host", &address, "me"], &[("AMENDS_TOKEN", "a")]);
    assert!(stderr.contains("no token came") && !stderr.contains("was not sent"), "{stderr}");
}

#[test]
fn a_token_that_is_not_there_or_that_others_may_read_is_refused() {
    let user = User::new(
        "[context.file]\nhost = \"127.0.0.1:9\"\ntoken = { file = \"~/.config/amends/a.token\" }\n\
         [context.variable]\nhost = \"127.0.0.1:9\"\ntoken = { env = \"A_TOKEN\" }\n",
    );
    let told = |context: &str, variables: &[(&str, &str)]| {
        let (code, _, stderr) = user.amends(&["me", "--context", context], variables);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(!stderr.contains("amends_secret"), "{stderr}");
        stderr
    };
    assert!(told("file", &[]).contains("cannot be read"));
    for mode in [0o644, 0o640, 0o604, 0o660] {
        user.write("a.token", "amends_secret", mode);
        let stderr = told("file", &[]);
        assert!(stderr.contains("other users") && stderr.contains("chmod 600"), "{stderr}");
    }
    for (text, words) in [
        ("\n", "is empty"),
        ("amends_secret two", "a character that no token has"),
        (&"amends_secret".repeat(400), "more than 4096 bytes"),
    ] {
        user.write("a.token", text, 0o600);
        assert!(told("file", &[]).contains(words), "{words}");
    }
    assert!(told("variable", &[]).contains("`A_TOKEN` is not set"));
    assert!(told("variable", &[("A_TOKEN", " ")]).contains("`A_TOKEN` is not set"));
    // Another token needs none of them.
    let (code, _, stderr) =
        user.amends(&["me", "--context", "file"], &[("AMENDS_TOKEN", "amends_mine")]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("cannot be reached"), "{stderr}");
}

const THREE: &str = "# Hosts of the shop.
[context.production]
host = \"https://amends.example.com\"   # behind the proxy
token = { env = \"PRODUCTION_TOKEN\" }
user = \"ada\"

[context.staging]
host = \"127.0.0.1:7070\"
";

#[test]
fn contexts_are_listed_chosen_and_shown() {
    let user = User::new(THREE);
    let json = |arguments: &[&str], variables: &[(&str, &str)]| -> Value {
        let arguments = [arguments, &["-o", "json"]].concat();
        let (code, stdout, stderr) = user.amends(&arguments, variables);
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        serde_json::from_str(&stdout).unwrap()
    };
    let production = |is_current: bool| {
        json!({
            "name": "production", "is_current": is_current, "host": "https://amends.example.com",
            "token": "variable PRODUCTION_TOKEN", "user": "ada",
        })
    };
    let staging = json!({
        "name": "staging", "is_current": false, "host": "127.0.0.1:7070", "token": null, "user": null,
    });
    assert_eq!(json(&["context", "list"], &[]), json!([production(false), staging]));
    let (code, _, stderr) = user.amends(&["context", "show"], &[]);
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains("no context is chosen"), "{stderr}");

    let (code, stdout, _) = user.amends(&["context", "use", "production"], &[]);
    assert_eq!((code, stdout.as_str()), (Some(0), "production is the current context\n"));
    let text = fs::read_to_string(user.file("config.toml")).unwrap();
    assert_eq!(text, format!("current_context = \"production\"\n{THREE}"));
    assert_eq!(json(&["context", "show"], &[]), production(true));
    assert_eq!(json(&["context", "show"], &[("AMENDS_CONTEXT", "staging")]), staging);
    assert_eq!(json(&["context", "show", "--context", "staging"], &[]), staging);
    let (_, stdout, _) = user.amends(&["context", "list", "-o", "ids"], &[]);
    assert_eq!(stdout, "production\nstaging\n");
    let (_, stdout, _) = user.amends(&["context", "list"], &[]);
    assert!(stdout.contains("variable PRODUCTION_TOKEN") && stdout.contains("yes"), "{stdout}");
}

#[test]
fn what_names_no_context_is_an_error_that_says_which_there_are() {
    let user = User::new(THREE);
    let told = |arguments: &[&str], variables: &[(&str, &str)], exit: i32| {
        let (code, _, stderr) = user.amends(arguments, variables);
        assert_eq!(code, Some(exit), "{arguments:?}: {stderr}");
        stderr
    };
    let near = "did you mean `production`?";
    assert!(told(&["me", "--context", "prodution"], &[], 4).contains(near));
    assert!(told(&["context", "use", "prodution"], &[], 4).contains(near));
    let stderr = told(&["me"], &[("AMENDS_CONTEXT", "prodution")], 4);
    assert!(stderr.contains("AMENDS_CONTEXT") && stderr.contains(near), "{stderr}");
    let stderr = told(&["me", "--context", "other"], &[], 4);
    assert!(stderr.contains("`amends context list` lists"), "{stderr}");
    assert_eq!(fs::read_to_string(user.file("config.toml")).unwrap(), THREE);

    // A name in the file that no context has can be mended by the verb.
    fs::write(user.file("config.toml"), format!("current_context = \"gone\"\n{THREE}")).unwrap();
    assert!(told(&["me"], &[], 4).contains("which current_context names"));
    told(&["context", "use", "staging"], &[], 0);

    fs::write(user.file("config.toml"), "[context.a]\nhots = \"a\"\n").unwrap();
    let stderr = told(&["me"], &[], 2);
    assert!(
        stderr.contains("config.toml:2:1") && stderr.contains("did you mean `host`?"),
        "{stderr}"
    );
    fs::write(user.file("config.toml"), "[context.a]\nhost = \"7070\"\n").unwrap();
    assert!(told(&["me", "--context", "a"], &[], 2).contains("the host of the context `a`"));
    fs::remove_file(user.file("config.toml")).unwrap();
    let stderr = told(&["me", "--context", "a"], &[], 4);
    assert!(stderr.contains("write [context.a]"), "{stderr}");

    for verb in ["check", "replay"] {
        let stderr = told(&["--context", "a", verb, "a.toml"], &[], 2);
        assert!(stderr.contains("--context changes nothing"), "{stderr}");
    }
    let stderr = told(&["--host", "a", "context", "list"], &[], 2);
    assert!(stderr.contains("--host changes nothing"), "{stderr}");
}
