//! A proxy that signs people in: whose headers a host believes, and what people may do.

use serde_json::{Value, json};

use super::asker::{ADMIN, AUTH, Asker, run};
use crate::place::{Host, Place, agent};

const SAGA: &str =
    "[[saga]]\nname = \"gate\"\n[[saga.step]]\nname = \"approval\"\nwait = \"approved\"\n";

/// A host that believes these addresses.
fn place(peers: &str) -> Place {
    let place = Place::empty();
    let roles = "roles = { sre = [\"operator\"], support = [\"viewer\"] }\npayloads = [\"sre\"]\n";
    place.config(&format!("{AUTH}[auth.proxy]\npeers = [\"{peers}\"]\n{roles}{SAGA}"));
    place
}

/// The status and the body of an answer to a request with these headers.
fn send(host: &Host, (method, path): (&str, &str), headers: &[(&str, &str)]) -> (u16, Value) {
    let request = ureq::http::Request::builder().method(method).uri(host.url(path));
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let request = request.header("content-type", "application/json");
    let body = if method == "POST" {
        json!({"definition": "gate", "input": {"price": 7}}).to_string()
    } else {
        String::new()
    };
    let mut response = agent().run(request.body(body).unwrap()).unwrap();
    let status = response.status().as_u16();
    (status, response.body_mut().read_json().unwrap())
}

#[test]
fn a_person_may_do_what_their_groups_may() {
    let place = place("127.0.0.0/8");
    let host = run(&place);
    let ada = [("x-forwarded-user", "ada"), ("x-forwarded-groups", "staff, sre")];
    let eve = [("x-forwarded-user", "eve"), ("x-forwarded-groups", "support")];
    let (status, me) = send(&host, ("GET", "/v1/me"), &ada);
    assert_eq!(
        (status, &me["who"], &me["roles"]),
        (200, &json!("proxy:ada@127.0.0.1"), &json!(["operator"]))
    );
    assert_eq!(me["permissions"], json!(["read", "payloads", "start", "operate"]));
    let (status, saga) = send(&host, ("POST", "/v1/sagas"), &ada);
    assert_eq!(status, 202, "{saga}");
    let path = format!("/v1/sagas/{}", saga["id"].as_str().unwrap());
    let (status, seen) = send(&host, ("GET", path.as_str()), &eve);
    assert_eq!((status, &seen["input"]), (200, &json!("[withheld]")), "{seen}");
    let (status, refused) = send(&host, ("POST", "/v1/sagas"), &eve);
    assert_eq!((status, &refused["code"]), (403, &json!("permission_missing")));
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("the user `proxy:eve` (viewer)"), "{detail}");

    // Who asked for a change is in the audit, and nobody is known without a role.
    let audit = Asker::with(ADMIN).get(&host, "/v1/audit").done();
    let whos: Vec<_> = audit["items"].as_array().unwrap().iter().map(|it| &it["who"]).collect();
    assert!(whos.contains(&&json!("proxy:eve@127.0.0.1")), "{audit}");
    for (groups, told) in [("staff,dev", "staff, dev"), ("", "no group"), ("SRE", "SRE")] {
        let headers = [("x-forwarded-user", "bob"), ("x-forwarded-groups", groups)];
        let (status, refused) = send(&host, ("GET", "/v1/me"), &headers);
        assert_eq!((status, &refused["code"]), (403, &json!("no_role")), "{refused}");
        assert!(refused["detail"].as_str().unwrap().contains(told), "{refused}");
    }
    let (status, refused) = send(&host, ("GET", "/v1/me"), &[("x-forwarded-groups", "sre")]);
    assert_eq!((status, &refused["code"]), (401, &json!("token_missing")));
    let twice = [ada[0], eve[0], ada[1]];
    let (status, refused) = send(&host, ("GET", "/v1/me"), &twice);
    assert_eq!((status, &refused["code"]), (400, &json!("bad_header")));
    let groups_twice = [ada[0], eve[1], ada[1]];
    let (status, refused) = send(&host, ("GET", "/v1/me"), &groups_twice);
    assert_eq!((status, &refused["code"]), (400, &json!("bad_header")));
    // The token counts, whatever the proxy says.
    let token = format!("Bearer {ADMIN}");
    let (_, me) =
        send(&host, ("GET", "/v1/me"), &[eve[0], eve[1], ("authorization", token.as_str())]);
    assert_eq!(me["who"], "admin_token@127.0.0.1");
    // A page whose name leads here is no proxy.
    let (status, refused) =
        send(&host, ("GET", "/v1/me"), &[ada[0], ada[1], ("host", "evil.example")]);
    assert_eq!((status, &refused["code"]), (421, &json!("wrong_host")));
    // A balancer asks for the address that it knows, and so may whoever shows a token.
    let by_address = ("host", "10.0.0.7:7070");
    let (status, _) = send(&host, ("GET", "/readyz"), &[by_address]);
    assert_eq!(status, 200);
    let (status, _) =
        send(&host, ("GET", "/v1/me"), &[by_address, ("authorization", token.as_str())]);
    assert_eq!(status, 200);
}

#[test]
fn headers_from_elsewhere_are_refused() {
    let place = place("10.1.2.3");
    let host = run(&place);
    let headers = [("x-forwarded-user", "ada"), ("x-forwarded-groups", "sre")];
    let (status, refused) = send(&host, ("GET", "/v1/me"), &headers);
    assert_eq!((status, &refused["code"]), (401, &json!("proxy_not_trusted")), "{refused}");
    let (status, _) = send(&host, ("GET", "/healthz"), &headers);
    assert_eq!(status, 200);
    Asker::default().get(&host, "/v1/me").is_refused(401, "token_missing");
    Asker::with(ADMIN).get(&host, "/v1/me").done();
}
