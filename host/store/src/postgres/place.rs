//! Where a database is: the URL, and what of it may be shown.

use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, SslNegotiation, TargetSessionAttrs};

use super::error::said;
use super::tls::Tls;
use super::tls_url::{TlsMode, take_parameters};
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
    pub(super) tls: Tls,
    /// The URL without the password.
    pub(super) shown: String,
}

/// Reads the URL of a database, and the certificates that it names.
pub(super) fn read_url(url: &str) -> Result<Place, OpenError> {
    let (url, parameters) = take_parameters(url).map_err(OpenError::PostgresUrl)?;
    let mut config: Config =
        url.parse().map_err(|error: tokio_postgres::Error| wrong(&said(&error)))?;
    if config.get_dbname().is_none_or(str::is_empty) {
        return Err(wrong("it names no database"));
    }
    if config.get_user().is_none_or(str::is_empty) {
        return Err(wrong("it names no user"));
    }
    if config.get_hosts().is_empty() {
        return Err(wrong("it names no host"));
    }
    if config.get_password().is_none()
        && let Ok(password) = std::env::var("PGPASSWORD")
    {
        config.password(password);
    }
    let mode = parameters.mode(is_remote(&config)).map_err(OpenError::PostgresUrl)?;
    config.ssl_mode(match mode {
        TlsMode::Disable => SslMode::Disable,
        TlsMode::Prefer => SslMode::Prefer,
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
    });
    if config.get_ssl_negotiation() == SslNegotiation::Direct
        && config.get_ssl_mode() != SslMode::Require
    {
        return Err(wrong("sslnegotiation=direct needs sslmode=verify-full, verify-ca or require"));
    }
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
    let tls = Tls::new(mode, &parameters)
        .map_err(|what| OpenError::Postgres { place: shown.clone(), what })?;
    Ok(Place { config, tls, shown })
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

/// Returns true when what is sent may pass other machines.
fn is_remote(config: &Config) -> bool {
    let is_near = |host: &Host| match host {
        Host::Tcp(name) => {
            let address = name.parse::<std::net::IpAddr>();
            name == "localhost" || address.is_ok_and(|address| address.is_loopback())
        }
        Host::Unix(_) => true,
    };
    // Where there are addresses, the names are for certificates alone.
    let addresses = config.get_hostaddrs();
    if addresses.is_empty() {
        !config.get_hosts().iter().all(is_near)
    } else {
        !addresses.iter().all(std::net::IpAddr::is_loopback)
    }
}

impl Place {
    /// Says what others may do with what is sent, if they may do anything.
    pub(super) fn risk(&self) -> Option<&'static str> {
        if !is_remote(&self.config) {
            return None;
        }
        match self.tls.mode {
            TlsMode::Disable => Some(
                "what is sent to the database is not encrypted (sslmode=disable): other machines can read and change \
                 it; sslmode=verify-full encrypts it",
            ),
            TlsMode::Prefer => Some(
                "what is sent to the database may be unencrypted (sslmode=prefer): other machines can have it so; \
                 sslmode=verify-full does not let them",
            ),
            TlsMode::Require => Some(
                "the server of the database is not checked (sslmode=require): another one can take its place; \
                 sslmode=verify-full checks it",
            ),
            TlsMode::VerifyCa | TlsMode::VerifyFull => None,
        }
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
        for (url, said) in [
            ("postgres://db/x", "names no user"),
            ("postgres://a@db", "names no database"),
            ("postgres://a:secret@db/x?sslmode=allow", "verify-full"),
            ("postgres://a:secret@db/x?sslmode=prefer&sslnegotiation=direct", "sslnegotiation"),
            (
                "postgres://a:secret@db/x?sslrootcert=/nowhere/ca.pem",
                "/nowhere/ca.pem (sslrootcert)",
            ),
            ("postgres://a:secret@db:port/x", "not understood"),
            ("postgres://a:secret@db/x?colour=red", "unknown option `colour`"),
        ] {
            let error = read_url(url).err().unwrap().to_string();
            assert!(error.contains(said) && !error.contains("secret"), "{url}: {error}");
        }
    }

    #[test]
    fn the_risk_is_said_where_others_may_listen() {
        let risk = |url: &str| read_url(url).unwrap().risk().unwrap_or("").to_owned();
        for (url, said) in [
            ("postgres://a@db/x?sslmode=disable", "not encrypted"),
            ("postgres://a@127.0.0.1,db/x?sslmode=prefer", "may be unencrypted"),
            ("postgres://a@db/x?sslmode=require", "not checked"),
            ("postgres://a@localhost/x?sslmode=disable&hostaddr=10.0.0.1", "not encrypted"),
        ] {
            assert!(risk(url).contains(said), "{url}");
        }
        for url in [
            "a@127.0.0.1/x",
            "a@[::1]/x?sslmode=require",
            "a@%2Frun/x",
            "a@db/x?hostaddr=127.0.0.1",
        ] {
            assert_eq!(risk(&format!("postgres://{url}")), "", "{url}");
        }
        assert_eq!(read_url("postgres://a@127.0.0.1/x").unwrap().tls.mode, TlsMode::Disable);
    }
}
