//! `tls` of `[host]`: who has the certificates of the host, and which addresses need one.
//!
//! Deliberately absent: what is in the files. The server reads them, at the start and whenever they change.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::overrides::Overrides;
use crate::secret::others_may_read;
use crate::setting::{LastSaid, Setting};
use crate::table::{Context, Item, Table};

/// The value of `tls` with which a proxy before the host has the certificates.
const TLS_PROXY: &str = "proxy";

/// The value of `tls` with which the host itself has a certificate.
const TLS_FILES: &str = "{ certificate = \"tls/host.pem\", key = \"tls/host.key\" }";

/// Who has the certificates of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostTls {
    /// A proxy before the host. The host itself speaks plain HTTP.
    Proxy,
    /// The host itself, which takes https only.
    Own(TlsFiles),
}

/// The files of a host's own certificate, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate of the host, and after it those that lead to an authority.
    pub certificate: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
}

/// What the config says of TLS.
pub(super) struct SaidTls {
    /// `None`: nothing, or what was reported.
    pub(super) tls: Option<HostTls>,
    /// Whether it says anything, right or wrong.
    pub(super) is_said: bool,
}

/// Reads `tls` of `[host]`. A flag and a variable can say only that there is a proxy.
pub(super) fn read_tls(
    table: &mut Table<'_>,
    overrides: &Overrides,
    context: &mut Context<'_>,
) -> SaidTls {
    let item = table.take("tls", context);
    let (files, word) = match item {
        Some(item) if item.value.is_table() => (Some(item), None),
        word => (None, word),
    };
    let mut is_said = files.is_some() || word.is_some();
    let own = files.and_then(|item| read_files(&item, context));
    let setting = Setting {
        name: "tls",
        flag: ("--tls", overrides.flags.tls.as_ref()),
        variable: "AMENDS_TLS",
        example: "\"proxy\"",
    };
    let word = setting.above(&table.key, word.as_ref(), &overrides.environment, context);
    is_said |= word.is_some();
    let tls = match word {
        Some(given) => read_word(&given, context),
        None => own.map(HostTls::Own),
    };
    SaidTls { tls, is_said }
}

/// Reads a text, which can only say that there is a proxy. Any other is reported.
fn read_word(given: &LastSaid, context: &mut Context<'_>) -> Option<HostTls> {
    if given.text == TLS_PROXY {
        return Some(HostTls::Proxy);
    }
    let help = format!(
        "write \"{TLS_PROXY}\" when a proxy before the host has the certificates; when the host has one, write \
         tls = {TLS_FILES} into the file"
    );
    given.error(context, format!("`{}` is not allowed here", given.text), help);
    None
}

/// Reads the table that names the files.
fn read_files(item: &Item<'_>, context: &mut Context<'_>) -> Option<TlsFiles> {
    let mut table = item.table(context, &format!("write tls = {TLS_FILES}"))?;
    let certificate = table.require("certificate", "\"tls/host.pem\"", context);
    let key = table.require("key", "\"tls/host.key\"", context);
    table.finish(context);
    let certificate = certificate.and_then(|item| read_path(&item, context));
    let key = key.and_then(|item| {
        let path = read_path(&item, context)?;
        if others_may_read(&path) {
            let shown = path.display();
            let message = format!("every user of this machine may read the file {shown}");
            context.warn(item.place(context), &item.key, message, format!("chmod o-rwx {shown}"));
        }
        Some(path)
    });
    Some(TlsFiles { certificate: certificate?, key: key? })
}

/// Reads the path of a file. That it is missing is as bad as a missing secret.
fn read_path(item: &Item<'_>, context: &mut Context<'_>) -> Option<PathBuf> {
    let text = item.text(context, "\"tls/host.pem\"")?;
    let path = context.source.resolve(text);
    if text.is_empty() || path.is_dir() {
        let message = "this is not the path of a file";
        item.error(context, message, "write the path of a file in PEM, such as \"tls/host.pem\"");
        return None;
    }
    if !path.exists() {
        let help = "put the file there, readable by the host; a relative path counts from the config's folder";
        context.lacks_secret(item, format!("there is no file {}", path.display()), help);
    }
    Some(path)
}

/// Reports what a host lacks that other machines reach: access control, and TLS. Without TLS, everybody on the
/// way reads the tokens.
pub(super) fn check_reach(
    given: &LastSaid,
    address: SocketAddr,
    has_auth: bool,
    has_tls: bool,
    context: &mut Context<'_>,
) {
    if address.ip().is_loopback() {
        return;
    }
    let reached = format!("{address} can be reached from other machines; that needs");
    let or = format!("or listen on 127.0.0.1:{}", address.port());
    if !has_auth {
        given.error(
            context,
            format!("{reached} access control, and there is no [auth]"),
            format!("add [auth] with admin_token = {{ env = \"AMENDS_ADMIN_TOKEN\" }}, {or}"),
        );
    }
    if !has_tls {
        given.error(
            context,
            format!("{reached} a certificate of the host or a proxy that has one, and tls is not set"),
            format!(
                "set tls = {TLS_FILES} in [host], or tls = \"{TLS_PROXY}\" when a proxy before the host has the \
                 TLS, {or}"
            ),
        );
    }
}
