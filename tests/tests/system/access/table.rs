//! Who may do what: each operation that the host describes, asked for with every role, and what the table of the
//! book says of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::asker::{ADMIN, ADMIN_VARIABLE, AUTH, Asker, make, revoke};
use crate::on::{seconds, signature};
use crate::place::{Host, Place, SOON, repository};

/// The page with the table.
const PAGE: &str = "host/docs/src/operations/access.md";

/// The columns of the table.
const ROLES: [&str; 5] = ["viewer", "operator", "deployer", "service", "admin"];

/// Operations that ask nobody for a token.
const OPEN: [&str; 2] = ["get_health", "get_readiness"];

/// An id that no saga has.
const UNKNOWN: &str = "0198c0de-0000-7000-8000-000000000000";

const SECRET: &str = "whsec_bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3";

/// A rule without secrets and one with them. No event that a test sends to all operations is one of theirs.
const RULES: &str = "
[[saga]]
name = \"gate\"

[[saga.step]]
name = \"approval\"
wait = \"approved\"

[[on]]
name = \"open\"
event = \"order.*\"
start = \"gate\"

[[on]]
name = \"signed\"
event = \"order.*\"
secrets = [{ env = \"ON_SECRET\" }]
start = \"gate\"
";

fn place() -> Place {
    let place = Place::empty();
    place.config(&format!("{AUTH}{RULES}"));
    place
}

fn run(place: &Place) -> Host {
    place.run_with_env(&[ADMIN_VARIABLE, ("ON_SECRET", SECRET)])
}

/// What the table says of an operation and a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Yes,
    /// Only with payloads.
    WithPayloads,
    No,
}

/// The rows of the table, by operation.
fn table() -> BTreeMap<String, [Says; ROLES.len()]> {
    let page = fs::read_to_string(repository().join(PAGE)).unwrap();
    let (_, rest) = page.split_once("\n<!-- operations -->\n").unwrap();
    let (table, _) = rest.split_once("\n<!-- /operations -->\n").unwrap();
    let cells = |line: &str| -> Vec<String> {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    let mut lines = table.lines().filter(|line| line.starts_with('|'));
    let head = cells(lines.next().unwrap());
    assert_eq!(head[0], "operation");
    assert_eq!(head[1..], ROLES);
    let mut rows = BTreeMap::new();
    for line in lines.skip(1) {
        let row = cells(line);
        let says = row[1..].iter().map(|cell| match cell.as_str() {
            "yes" => Says::Yes,
            "payloads" => Says::WithPayloads,
            "–" => Says::No,
            other => panic!("{line}: `{other}`"),
        });
        let says: [Says; ROLES.len()] = says.collect::<Vec<_>>().try_into().unwrap();
        assert!(rows.insert(row[0].clone(), says).is_none(), "{line} stands there twice");
    }
    rows
}

/// A request that finds nothing and changes nothing, also when it is allowed.
struct Request {
    operation: String,
    method: String,
    path: String,
    /// Header lines, each with its end.
    lines: String,
    body: &'static str,
}

/// The answer to a request. Its body is read when it is a problem: another one may never end.
struct Answer {
    status: u16,
    /// In small letters.
    head: String,
    problem: Value,
}

impl Request {
    /// The request of an operation, as the document describes it.
    fn new(route: &str, method: &str, operation: &Value) -> Self {
        let path = route
            .replace("/v1/on/{name}", "/v1/on/open")
            .replace("/v1/tokens/{id}", "/v1/tokens/nobody")
            .replace("{id}", UNKNOWN)
            .replace("{digest}", &format!("sha256:{}", "0".repeat(64)))
            .replace("{key}", "stock/7")
            .replace("{name}", "nothing")
            .replace("{service}", "nothing");
        assert!(!path.contains('{'), "{route} has a parameter that this test does not know");
        let kinds = operation["requestBody"]["content"].as_object();
        let kind = kinds.and_then(|kinds| kinds.keys().next());
        let (lines, body) = match kind.map(String::as_str) {
            Some("multipart/form-data") => {
                ("content-type: multipart/form-data; boundary=x\r\n".to_owned(), "--x--\r\n")
            }
            Some(kind) => (format!("content-type: {kind}\r\n"), "{}"),
            None => (String::new(), ""),
        };
        let operation = operation["operationId"].as_str().unwrap().to_owned();
        Self { operation, method: method.to_uppercase(), path, lines, body }
    }

    /// Sends it with more header lines.
    fn send(&self, port: u16, more: &str) -> Answer {
        let Self { method, path, lines, body, .. } = self;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{lines}{more}\
             amends-request: test\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = reader.read_line(&mut head).unwrap();
            assert!(read > 0, "{method} {path}: no answer but {head:?}");
        }
        let head = head.to_ascii_lowercase();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut text = String::new();
        if status >= 400 {
            let _ = reader.read_to_string(&mut text);
        }
        let problem = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status, head, problem }
    }

    /// Whether an answer to it is this problem. The answer to HEAD does not say which one it is.
    fn is_refused(&self, answer: &Answer, status: u16, code: &str) -> bool {
        answer.status == status && (self.method == "HEAD" || answer.problem["code"] == code)
    }

    /// What to say of an answer that is wrong.
    fn told(&self, who: &str, answer: &Answer) -> String {
        let Self { operation, method, path, .. } = self;
        format!("{operation} ({method} {path}) {who}: {} {}", answer.status, answer.problem)
    }
}

/// A request for each operation of the document, and those that read also as HEAD and as a stream.
fn requests(host: &Host) -> Vec<Request> {
    let document = host.get("/v1/openapi.json");
    let mut requests = Vec::new();
    for (route, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            requests.push(Request::new(route, method, operation));
            if method == "get" {
                requests.push(Request::new(route, "head", operation));
            }
        }
    }
    let is_log = |request: &&Request| request.operation == "list_events";
    let Request { operation, method, path, .. } = requests.iter().find(is_log).unwrap();
    let (operation, method, path) = (operation.clone(), method.clone(), path.clone());
    let lines = "accept: text/event-stream\r\n".to_owned();
    requests.push(Request { operation, method, path, lines, body: "" });
    assert!(requests.len() > 80, "{} requests: where are the others?", requests.len());
    requests
}

/// A token, and what it was made with.
struct Holder {
    roles: Vec<&'static str>,
    payloads: bool,
    token: String,
}

impl Holder {
    /// Whether this row of the table lets the holder do it: one of the roles is enough.
    fn may(&self, says: &[Says]) -> bool {
        ROLES.iter().zip(says).any(|(role, says)| {
            let says = match says {
                Says::Yes => true,
                Says::WithPayloads => self.payloads,
                Says::No => false,
            };
            says && self.roles.contains(role)
        })
    }

    fn named(&self) -> String {
        let flag = if self.payloads { "with" } else { "without" };
        format!("{} {flag} payloads", self.roles.join("+"))
    }
}

/// A token of each role and one of two roles, with payloads and without, and that of the config.
fn holders(host: &Host) -> Vec<Holder> {
    let mut sets: Vec<_> = ROLES.iter().map(|role| vec![*role]).collect();
    sets.push(vec!["deployer", "service"]);
    let mut holders = Vec::new();
    for roles in sets {
        for payloads in [false, true] {
            let token = make(host, &format!("{}-{payloads}", roles.join("-")), &roles, payloads);
            holders.push(Holder { roles: roles.clone(), payloads, token });
        }
    }
    holders.push(Holder { roles: vec!["admin"], payloads: true, token: ADMIN.to_owned() });
    holders
}

/// The header line of a token.
fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

/// The text of a token with this id that no host has made.
fn forged(id: &str) -> String {
    let mut text = format!("amends_{id}_{}", "x".repeat(43));
    let digest = digest(&SHA256, text.as_bytes());
    for byte in &digest.as_ref()[..3] {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[test]
fn the_table_of_the_book_is_what_a_host_does() {
    let place = place();
    let host = run(&place);
    let (table, requests) = (table(), requests(&host));
    let described: BTreeSet<_> = requests.iter().map(|it| it.operation.as_str()).collect();
    let named: BTreeSet<_> = table.keys().map(String::as_str).collect();
    assert_eq!(named, described, "the page on the left, the document on the right");
    let mut wrong = Vec::new();
    for holder in holders(&host) {
        for request in &requests {
            let answer = request.send(place.port, &bearer(&holder.token));
            let is_right = if holder.may(&table[&request.operation]) {
                !matches!(answer.status, 401 | 403 | 405)
            } else {
                let detail = answer.problem["detail"].as_str().unwrap_or_default();
                let are_roles_told = holder.roles.iter().all(|role| detail.contains(role));
                request.is_refused(&answer, 403, "permission_missing")
                    && (are_roles_told || request.method == "HEAD")
            };
            if !is_right {
                wrong.push(request.told(&holder.named(), &answer));
            }
        }
    }
    assert!(wrong.is_empty(), "{} answers:\n{}", wrong.len(), wrong.join("\n"));
}

/// RFC 9110, 15.5.6.
#[test]
fn a_method_that_a_path_does_not_take_is_refused_with_those_that_it_takes() {
    let place = place();
    let host = run(&place);
    let token = make(&host, "screen", &["viewer"], false);
    let document = host.get("/v1/openapi.json");
    for (route, methods) in document["paths"].as_object().unwrap() {
        let methods = methods.as_object().unwrap();
        let request = Request::new(route, "patch", methods.values().next().unwrap());
        let answer = request.send(place.port, &bearer(&token));
        let told = request.told("as a viewer", &answer);
        assert!(request.is_refused(&answer, 405, "method_not_allowed"), "{told}");
        let allow = answer.head.lines().find_map(|line| line.strip_prefix("allow: "));
        let allowed: BTreeSet<_> = allow.expect(&told).split(", ").collect();
        let mut described: BTreeSet<_> = methods.keys().map(String::as_str).collect();
        if described.contains("get") {
            described.insert("head");
        }
        assert_eq!(allowed, described, "{told}");
        // Whether there is a token counts first.
        let answer = request.send(place.port, "");
        let told = request.told("without a token", &answer);
        assert!(request.is_refused(&answer, 401, "token_missing"), "{told}");
    }
}

#[test]
fn nobody_is_answered_without_a_token_that_counts() {
    let place = place();
    let host = run(&place);
    let revoked = make(&host, "revoked", &["admin"], true);
    revoke(&host, "revoked");
    let body = json!({"name": "expired", "roles": ["admin"], "expires_in": "1s"});
    let made = Asker::with(ADMIN).post(&host, "/v1/tokens", &body).done();
    let expired = made["token"].as_str().unwrap();
    host.until("the token expires", || Asker::with(expired).get(&host, "/v1/me").status == 401);
    let good = make(&host, "good", &["admin"], true);
    let slip =
        format!("{}{}", &good[..good.len() - 1], if good.ends_with('0') { '1' } else { '0' });
    let id = good["amends_".len()..].split('_').next().unwrap();
    let cases = [
        (String::new(), "token_missing"),
        ("authorization: Basic YWRhOmFkYQ==\r\n".to_owned(), "token_wrong"),
        ("authorization: Bearer\r\n".to_owned(), "token_wrong"),
        (bearer("nonsense"), "token_wrong"),
        (bearer(&slip), "token_wrong"),
        (bearer(&good[..good.len() - 1]), "token_wrong"),
        (bearer(&forged("0123456789")), "token_wrong"),
        (bearer(&forged(id)), "token_wrong"),
        (bearer(&format!("{ADMIN}0")), "token_wrong"),
        (bearer(&good).repeat(2), "token_wrong"),
        (bearer(expired), "token_expired"),
        (bearer(&revoked), "token_revoked"),
    ];
    let mut wrong = Vec::new();
    for request in requests(&host) {
        if OPEN.contains(&request.operation.as_str()) {
            let answer = request.send(place.port, "");
            assert_eq!(answer.status, 200, "{}", request.told("without a token", &answer));
            continue;
        }
        for (lines, code) in &cases {
            let answer = request.send(place.port, lines);
            let is_challenged = answer.head.contains("\r\nwww-authenticate: bearer");
            if !request.is_refused(&answer, 401, code) || !is_challenged {
                wrong.push(request.told(&format!("with {lines:?}"), &answer));
            }
        }
    }
    assert!(wrong.is_empty(), "{} answers:\n{}", wrong.len(), wrong.join("\n"));
    for path in ["/", "/v1/openapi.json"] {
        assert_eq!(Asker::default().get(&host, path).status, 200, "{path}");
    }
    // What does not exist is told to those who have a token.
    Asker::default().get(&host, "/v1/none").is_refused(401, "token_missing");
    Asker::with(&good).get(&host, "/v1/none").is_refused(404, "not_found");
    // The name of a scheme has no case (RFC 9110, 11.1).
    let request =
        requests(&host).into_iter().find(|request| request.operation == "get_me").unwrap();
    let answer = request.send(place.port, &format!("Authorization: bearer {good}\r\n"));
    assert_eq!(answer.status, 200, "{}", answer.problem);
}

/// Every operation in a namespace that the token may not see, and in one that does not exist: the same answer.
#[test]
fn a_namespace_that_a_token_may_not_see_is_none() {
    let place = place();
    let shop = "[namespace.shop.plugins]\ndir = \"plugins\"\n[[namespace.shop.saga]]\nname = \"gate\"\n\
                [[namespace.shop.saga.step]]\nname = \"approval\"\nwait = \"approved\"\n";
    place.config(&format!("{AUTH}{RULES}{shop}"));
    let host = run(&place);
    // Whatever it may do, and whatever it sees, in `default`.
    let token = make(&host, "grace", &["admin"], true);
    let (mut wrong, mut refused) = (Vec::new(), 0);
    for request in requests(&host) {
        let in_namespace = |name: &str, lines: &str| {
            request.send(place.port, &format!("amends-namespace: {name}\r\n{lines}"))
        };
        let is_open = OPEN.contains(&request.operation.as_str());
        for name in ["shop", "shup"] {
            let (answer, nobody) = (in_namespace(name, &bearer(&token)), in_namespace(name, ""));
            let is_right = if is_open || request.operation == "get_me" {
                answer.status == 200
            } else {
                refused += 1;
                let detail = answer.problem["detail"].as_str().unwrap_or_default();
                request.is_refused(&answer, 404, "no_namespace")
                    && (detail == format!("there is no namespace `{name}` for this caller")
                        || request.method == "HEAD")
            };
            let is_nobody_told = is_open || request.is_refused(&nobody, 401, "token_missing");
            if !is_right || !is_nobody_told {
                wrong.push(request.told(&format!("in {name}"), &answer));
            }
        }
        // The token of the config sees all of them.
        let answer = in_namespace("shop", &bearer(ADMIN));
        if answer.problem["code"] == "no_namespace" {
            wrong.push(request.told("as the config's token", &answer));
        }
    }
    assert!(wrong.is_empty(), "{} answers:\n{}", wrong.len(), wrong.join("\n"));
    assert!(refused > 140, "{refused} requests");
}

#[test]
fn events_are_judged_by_their_signature_or_else_by_a_token() {
    let place = place();
    let host = run(&place);
    let service = make(&host, "shop", &["service"], false);
    let viewer = make(&host, "screen", &["viewer"], true);
    let send = |rule: &str, id: &str, lines: &str| {
        let event =
            json!({"specversion": "1.0", "id": id, "source": "/shop", "type": "order.placed"});
        let body: &'static str = event.to_string().leak();
        let (at, port) = (seconds(), place.port);
        let signature = signature(SECRET, "m", at, body);
        let signed = format!(
            "webhook-id: m\r\nwebhook-timestamp: {at}\r\nwebhook-signature: {signature}\r\n"
        );
        let more = lines.replace("SIGNED", &signed);
        let request = Request {
            operation: "take_events".to_owned(),
            method: "POST".to_owned(),
            path: format!("/v1/on/{rule}"),
            lines: "content-type: application/cloudevents+json\r\n".to_owned(),
            body,
        };
        let answer = request.send(port, &more);
        (answer.status, answer.problem["code"].as_str().unwrap_or_default().to_owned())
    };
    let refused = |status: u16, code: &str| (status, code.to_owned());
    let taken = refused(202, "");
    // The signature counts, whatever token comes with it.
    assert_eq!(send("signed", "1", "SIGNED"), taken);
    assert_eq!(send("signed", "2", &format!("{}SIGNED", bearer(&viewer))), taken);
    assert_eq!(send("signed", "3", &format!("{}SIGNED", bearer("nonsense"))), taken);
    for token in [ADMIN, &service] {
        assert_eq!(send("signed", "4", &bearer(token)), refused(401, "signature_wrong"));
    }
    // Without secrets in the rule, the token does.
    assert_eq!(send("open", "1", "SIGNED"), refused(401, "token_missing"));
    assert_eq!(send("open", "1", &bearer(&viewer)), refused(403, "permission_missing"));
    assert_eq!(send("open", "1", &bearer(&service)), taken);
    assert_eq!(send("none", "1", "SIGNED"), refused(401, "token_missing"));
    assert_eq!(send("none", "1", &bearer(&service)), refused(404, "rule_unknown"));
    let sagas = Asker::with(ADMIN).get(&host, "/v1/sagas").done();
    assert_eq!(sagas["items"].as_array().unwrap().len(), 4, "{sagas}");
}
