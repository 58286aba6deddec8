//! Somebody who asks a host, with a token or without.

use serde_json::{Value, json};

use crate::place::{Host, Place, agent};

/// The token that the config of these tests has.
pub(crate) const ADMIN: &str = "the-first-token-of-these-tests-0123456789";

/// The variable that has it.
pub(crate) const ADMIN_VARIABLE: (&str, &str) = ("AMENDS_ADMIN_TOKEN", ADMIN);

/// Turns access control on, in a config.
pub(crate) const AUTH: &str = "[auth]\nadmin_token = { env = \"AMENDS_ADMIN_TOKEN\" }\n";

/// Starts a host with access control.
pub(crate) fn run(place: &Place) -> Host {
    place.run_with_env(&[ADMIN_VARIABLE])
}

/// Who asks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asker<'a> {
    token: Option<&'a str>,
    user: Option<&'a str>,
    namespace: Option<&'a str>,
}

/// What a host answers.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
    /// Null when the text is no JSON.
    pub(crate) body: Value,
}

impl Answer {
    /// The body of the answer to what was done.
    #[track_caller]
    pub(crate) fn done(self) -> Value {
        assert!((200..300).contains(&self.status), "{}: {}", self.status, self.text);
        self.body
    }

    #[track_caller]
    pub(crate) fn is_refused(&self, status: u16, code: &str) {
        let told = (self.status, self.body["code"].as_str());
        assert_eq!(told, (status, Some(code)), "{}", self.text);
    }
}

impl<'a> Asker<'a> {
    /// Who has this token.
    pub(crate) const fn with(token: &'a str) -> Self {
        Self { token: Some(token), user: None, namespace: None }
    }

    /// The same, who says that they ask for this person.
    pub(crate) const fn on_behalf_of(self, user: &'a str) -> Self {
        Self { user: Some(user), ..self }
    }

    /// The same, in this namespace.
    pub(crate) const fn in_namespace(self, name: &'a str) -> Self {
        Self { namespace: Some(name), ..self }
    }

    pub(crate) fn get(self, host: &Host, path: &str) -> Answer {
        self.send(host, ("GET", path), "")
    }

    pub(crate) fn post(self, host: &Host, path: &str, body: &Value) -> Answer {
        self.send(host, ("POST", path), &body.to_string())
    }

    pub(crate) fn put(self, host: &Host, path: &str, body: &Value) -> Answer {
        self.send(host, ("PUT", path), &body.to_string())
    }

    fn send(self, host: &Host, (method, path): (&str, &str), body: &str) -> Answer {
        let request = ureq::http::Request::builder().method(method).uri(host.url(path));
        let mut request = request.header("content-type", "application/json");
        if let Some(token) = self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(namespace) = self.namespace {
            request = request.header("amends-namespace", namespace);
        }
        if let Some(user) = self.user {
            request = request.header("amends-user", user);
        }
        let mut response = agent().run(request.body(body.to_owned()).unwrap()).unwrap();
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status, text, body }
    }
}

/// Makes a token with the token of the config; the text of it.
pub(crate) fn make(host: &Host, name: &str, roles: &[&str], payloads: bool) -> String {
    let body = json!({"name": name, "roles": roles, "payloads": payloads});
    let made = Asker::with(ADMIN).post(host, "/v1/tokens", &body);
    assert_eq!(made.status, 201, "{}", made.text);
    made.body["token"].as_str().unwrap().to_owned()
}

/// Revokes a token by its id or its name.
pub(crate) fn revoke(host: &Host, named: &str) {
    let path = format!("/v1/tokens/{named}/revoke");
    Asker::with(ADMIN).post(host, &path, &json!({"reason": "a test"})).done();
}
