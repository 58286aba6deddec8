//! Where a database is: the URL, and what of it may be shown.

use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use crate::error::OpenError;

/// How long a connection may take to be made.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// How long the network may keep what was sent from being acknowledged.
const SERVER_SILENCE_MAX: Duration = Duration::from_secs(5);

/// The name that the connections of a host have in `pg_stat_activity`.
pub(super) const APPLICATION: &str = "amends";

/// A database.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) config: Config,
    /// The URL without the password.
    pub(super) shown: String,
}

/// Reads the URL of a database.
pub(super) fn read_url(url: &str) -> Result<Place, OpenError> {
    let mut config: Config =
        url.parse().map_err(|error: tokio_postgres::Error| wrong(&error.to_string()))?;
    if config.get_dbname().is_none_or(str::is_empty) {
        return Err(wrong("it names no database"));
    }
    if config.get_user().is_none_or(str::is_empty) {
        return Err(wrong("it names no user"));
    }
    if config.get_hosts().is_empty() {
        return Err(wrong("it names no host"));
    }
    if config.get_ssl_mode() == SslMode::Require {
        return Err(wrong("it has sslmode=require, and this version has no TLS to a database"));
    }
    if config.get_password().is_none()
        && let Ok(password) = std::env::var("PGPASSWORD")
    {
        config.password(password);
    }
    config.ssl_mode(SslMode::Disable);
    config.application_name(APPLICATION);
    config.connect_timeout(CONNECT_TIME_MAX);
    config.tcp_user_timeout(SERVER_SILENCE_MAX);
    config.keepalives_idle(Duration::from_secs(2));
    config.keepalives_interval(Duration::from_secs(2));
    config.keepalives_retries(2);
    if config.get_hosts().len() > 1 {
        // Of several servers, the one that takes writes.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    let shown = shown(&config);
    Ok(Place { config, shown })
}

fn wrong(what: &str) -> OpenError {
    OpenError::PostgresUrl(what.to_owned())
}

/// Returns the URL of a database without its password and its parameters.
fn shown(config: &Config) -> String {
    let ports = config.get_ports();
    let hosts = config.get_hosts().iter().enumerate().map(|(number, host)| {
        let host = match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(folder) => folder.display().to_string(),
        };
        // One port may be that of all hosts.
        match ports.get(number).or_else(|| ports.first()) {
            Some(port) => format!("{host}:{port}"),
            None => host,
        }
    });
    let hosts: Vec<_> = hosts.collect();
    let (user, database) = (config.get_user().unwrap_or(""), config.get_dbname().unwrap_or(""));
    format!("postgres://{user}@{}/{database}", hosts.join(","))
}

impl Place {
    /// Returns true when what is sent may pass other machines.
    pub(super) fn is_remote(&self) -> bool {
        self.config.get_hosts().iter().any(|host| match host {
            Host::Tcp(name) => {
                let address = name.parse::<std::net::IpAddr>();
                !(name == "localhost" || address.is_ok_and(|address| address.is_loopback()))
            }
            Host::Unix(_) => false,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

    use super::*;

    #[test]
    fn what_is_shown_has_no_password() {
        let shown = |url: &str| read_url(url).unwrap().shown;
        assert_eq!(shown("postgres://a:secret@db:5433/amends"), "postgres://a@db:5433/amends");
        assert_eq!(shown("postgresql://a@db,[::1]/x"), "postgres://a@db:5432,::1:5432/x");
        assert!(read_url("postgres://a:secret@db/x").unwrap().is_remote());
        assert!(!read_url("postgres://a@127.0.0.1/x").unwrap().is_remote());
        for (url, said) in [
            ("postgres://db/x", "names no user"),
            ("postgres://a@db", "names no database"),
            ("postgres://a:secret@db/x?sslmode=require", "no TLS"),
            ("postgres://a:secret@db:port/x", "not understood"),
            ("postgres://a:secret@db/x?colour=red", "not understood"),
        ] {
            let error = read_url(url).err().unwrap().to_string();
            assert!(error.contains(said) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
