//! `amends plugin keygen` and `amends plugin sign`: keys and signatures of minisign, whose own tool
//! makes and reads the same.
//!
//! Deliberately absent: verifying (`plugin inspect --config` and every host do), and taking
//! signatures off.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{Cursor, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use amends_runtime::unencrypted_secret_key;
use amends_sandbox::{Signed, TrustedKey, TrustedKeys};
use anyhow::{Context as _, bail};
use clap::Args;
use minisign::{ErrorKind, KeyPair, PublicKey, SecretKey, SecretKeyBox};

use crate::commands::exit::EXIT_DONE;
use crate::commands::output::say;
use crate::commands::replace::replace;

/// Where a password may stand, so that nobody has to type it. No flag: others on the machine see
/// those.
const PASSWORD_VARIABLE: &str = "AMENDS_KEY_PASSWORD";

/// The comment in a file with a secret key.
const SECRET_KEY_COMMENT: &str = "minisign secret key, for nobody else";

/// The arguments of `plugin keygen`.
#[derive(Debug, Args)]
pub(crate) struct Keygen {
    /// The files: NAME.key is the secret key, NAME.pub the public one
    pub(crate) name: PathBuf,
    /// Leave the secret key without a password, for CI: who has the file can sign
    #[arg(long)]
    pub(crate) no_password: bool,
}

/// The arguments of `plugin sign`.
#[derive(Debug, Args)]
pub(crate) struct Sign {
    /// The component
    pub(crate) file: PathBuf,
    /// The file with the secret key
    #[arg(long, value_name = "SECRET_FILE")]
    pub(crate) key: PathBuf,
    /// Where the signed component goes; by default it takes the place of the file
    #[arg(short, long = "out", value_name = "OUT")]
    pub(crate) out: Option<PathBuf>,
}

/// Makes a pair of keys.
///
/// # Errors
/// When one of its files is there already or cannot be written; none is left behind then.
pub(super) fn keygen(args: &Keygen) -> anyhow::Result<u8> {
    let (secret, public) = (with_end(&args.name, ".key"), with_end(&args.name, ".pub"));
    for file in [&secret, &public] {
        if file.exists() {
            bail!(
                "{} is there already, and a key that is overwritten is lost\n  help: choose another \
                 name, or remove it",
                file.display()
            );
        }
    }
    let pair = if args.no_password {
        KeyPair::generate_unencrypted_keypair()
    } else {
        // Without a password in the environment it is asked for, twice.
        KeyPair::generate_encrypted_keypair(password())
    };
    let KeyPair { pk, sk } = pair.context("no key could be made")?;
    let secret_text = sk.to_box(Some(SECRET_KEY_COMMENT))?.into_string();
    write_new(&secret, 0o600, &secret_text)?;
    if let Err(error) = write_new(&public, 0o644, &pk.to_box()?.into_string()) {
        let _ = fs::remove_file(&secret);
        return Err(error);
    }
    say!("secret key  {}: sign with it, and show it to nobody", secret.display())?;
    say!("public key  {}", public.display())?;
    say!("\n[plugins]\ntrusted_keys = [\"{}\"]", pk.to_base64())?;
    Ok(EXIT_DONE)
}

/// Signs a component.
///
/// # Errors
/// When it is none, the key cannot be used, or the result cannot be written; the file is as it was
/// then.
pub(super) fn sign(args: &Sign) -> anyhow::Result<u8> {
    let file = args.file.display();
    let bytes = fs::read(&args.file).with_context(|| format!("cannot read {file}"))?;
    let unsigned = Signed::read(&bytes).with_context(|| format!("{file} cannot be signed"))?;
    let key = secret_key(&args.key)?;
    let public = PublicKey::from_secret_key(&key)?;
    let trusted: TrustedKey = public.to_base64().parse().map_err(anyhow::Error::msg)?;
    let comment = format!("signature by key {}", trusted.id());
    let content = Cursor::new(unsigned.content());
    let signature = minisign::sign(Some(&public), &key, content, None, Some(&comment))
        .with_context(|| format!("{} is damaged", args.key.display()))?;
    let signed = unsigned.with(&signature.into_string())?;
    let id = trusted.id();
    TrustedKeys::from_iter([trusted]).check(&signed).context("what was signed does not verify")?;
    let out = args.out.as_ref().unwrap_or(&args.file);
    replace(out, &args.file, &signed)
        .with_context(|| format!("{} cannot be written", out.display()))?;
    let (out, public) = (out.display(), public.to_base64());
    say!("{out} is signed by key {id}, which a host trusts with")?;
    say!("\n[plugins]\ntrusted_keys = [\"{public}\"]")?;
    Ok(EXIT_DONE)
}

fn password() -> Option<String> {
    std::env::var(PASSWORD_VARIABLE).ok()
}

/// `release` and `.key`: a dot in the name is a part of it.
fn with_end(name: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(name);
    name.push(end);
    name.into()
}

/// For its owner alone from its first byte on, where the mode says so.
fn write_new(file: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(file)
        .and_then(|mut open| {
            open.write_all(text.as_bytes())?;
            open.sync_all()
        })
        .with_context(|| format!("{} cannot be written", file.display()))
}

/// With its password, if it has one: of the environment, else asked for.
fn secret_key(file: &Path) -> anyhow::Result<SecretKey> {
    let shown = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    let refused = match unencrypted_secret_key(&text) {
        Ok(key) => return Ok(key),
        Err(refused) => refused,
    };
    // Damaged, and not encrypted: a password does not help.
    if matches!(refused.kind(), ErrorKind::Verify) {
        bail!("{shown}: {refused}");
    }
    SecretKeyBox::from(text).into_secret_key(password()).with_context(|| {
        format!("{shown} cannot be used as a secret key, such as `amends plugin keygen` makes")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use amends_tests::Component;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// Of `minisign -G -W`, version 0.11.
    const KEY: &str = "RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAJ+bxyUoOxnWEtExOApUdEJdpdMcrmsa/AWlGoUdMZ6qZsj9nRjs9CWFp394CS3Zdgt7jFJeD+tzsy06N4GIr9gU/Tbv2ywtYAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    const PUBLIC: &str = "RWQn5vHJSg7GdWFp394CS3Zdgt7jFJeD+tzsy06N4GIr9gU/Tbv2ywtY";

    fn signed_by(key: &str) -> anyhow::Result<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let (file, secret) = (folder.path().join("test.wasm"), folder.path().join("test.key"));
        fs::write(&file, Component::default().build()).unwrap();
        fs::write(&secret, format!("untrusted comment: minisign secret key\n{key}\n")).unwrap();
        sign(&Sign { file: file.clone(), key: secret, out: None })?;
        Ok(fs::read(file).unwrap())
    }

    #[test]
    fn a_key_of_the_tool_signs_and_a_damaged_one_does_not() {
        let trusted = TrustedKeys::from_iter([PUBLIC.parse::<TrustedKey>().unwrap()]);
        assert_eq!(trusted.check(&signed_by(KEY).unwrap()), Ok(()));
        // In the secret half, and in the public one.
        for at in [70, 110] {
            let mut bytes = STANDARD.decode(KEY).unwrap();
            bytes[at] ^= 1;
            let told = signed_by(&STANDARD.encode(bytes)).unwrap_err().to_string();
            assert!(told.ends_with("test.key is damaged"), "{told}");
        }
    }
}
