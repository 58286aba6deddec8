//! `evidence`: a saga as a file that the host has signed, and the check of such a file without a host.
//!
//! Deliberately absent: a look at what the events say. `history` and `replay` do that.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use reqwest::Method;

use amends_api_types::{EVIDENCE_LINE_BYTES_MAX, EvidenceCheck, EvidenceFound, EvidenceMisfit};
use amends_engine::on_one_line;
use amends_sandbox::TrustedKey;

use crate::commands::client::{Client, HostArgs, escape};
use crate::commands::exit::EXIT_DONE;
use crate::commands::ids::one_id;
use crate::commands::output::{counted, say, write};
use crate::commands::store::download::{Draft, exists};

/// The most bytes of the file of a public key: a comment, and 56 letters.
const KEY_FILE_BYTES_MAX: u64 = 4_096;

/// The bytes of a signature that minisign makes: an algorithm, the id of a key, and one of Ed25519.
const SIGNATURE_BYTES: usize = 74;

/// The bytes of the signature over the first one and the comment.
const COMMENT_SIGNATURE_BYTES: usize = 64;

/// The arguments of the verb.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  amends evidence ID --out order-4711.evidence\n  amends evidence verify \
                  order-4711.evidence --key host.pub\n\nThe host needs evidence_key in [host] of its config. The \
                  evidence has all inputs and outputs of the saga\nand the names of those who gave orders: look at \
                  it before you hand it on."
)]
pub(crate) struct Evidence {
    /// What else to do.
    #[command(subcommand)]
    pub(crate) command: Option<EvidenceCommand>,
    /// The saga's id, eight or more digits of its beginning or end, or @last
    #[arg(required = true)]
    pub(crate) id: Option<String>,
    /// The file to write; standard output when there is none, or -
    #[arg(short, long = "out", value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Replace the file when it exists
    #[arg(long)]
    pub(crate) replace: bool,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// What is done with evidence that is there.
#[derive(Debug, Subcommand)]
pub(crate) enum EvidenceCommand {
    /// Check that evidence is whole and signed by a key, without a host
    Verify(Verify),
}

/// The arguments of `evidence verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  amends evidence verify order-4711.evidence --key host.pub\n\nIt exits with 1 and names the \
                  first line that does not fit when a byte was changed,\nor a line was removed, added or moved."
)]
pub(crate) struct Verify {
    /// The evidence; - reads standard input
    pub(crate) file: PathBuf,
    /// The file with the public key of the host, such as `amends plugin keygen` makes
    #[arg(long, value_name = "PUBLIC_FILE")]
    pub(crate) key: PathBuf,
}

pub(crate) async fn run(args: Evidence) -> anyhow::Result<u8> {
    match (args.command, args.id) {
        (Some(EvidenceCommand::Verify(verify)), _) => check(&verify),
        (None, Some(id)) => {
            // As for other verbs.
            let out = args.out.filter(|file| file.as_os_str() != "-");
            let client = Client::new(&args.host)?;
            fetch(&client, &id, out.as_deref(), args.replace).await
        }
        // Clap asks for one of both.
        (None, None) => bail!("name a saga"),
    }
}

/// Writes the evidence of a saga as it comes. A file appears under its name when it is complete.
async fn fetch(
    client: &Client,
    id: &str,
    out: Option<&Path>,
    may_replace: bool,
) -> anyhow::Result<u8> {
    if let Some(file) = out.filter(|_| !may_replace)
        && file.symlink_metadata().is_ok()
    {
        return Err(exists(file).into());
    }
    let id = one_id(client, id).await?;
    let path = format!("/v1/sagas/{}/evidence", escape(&id));
    let mut response = client.send_as_user(client.request(Method::GET, &path)).await?;
    let mut draft = out.map(Draft::create).transpose()?;
    let mut written = 0;
    while let Some(piece) = response
        .chunk()
        .await
        .context("the host broke the evidence off: what came of it has no signature")?
    {
        match &mut draft {
            Some(draft) => draft.write(&piece, written)?,
            None => write(&piece)?,
        }
        written += piece.len() as u64;
    }
    if let (Some(mut draft), Some(file)) = (draft, out) {
        draft.finish(file, may_replace)?;
        say!("{} has the evidence of saga {id}", file.display())?;
    }
    Ok(EXIT_DONE)
}

fn check(args: &Verify) -> anyhow::Result<u8> {
    let key = public_key(&args.key)?;
    let file = args.file.display();
    let lines: Box<dyn BufRead> = if args.file.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let open = File::open(&args.file).with_context(|| format!("{file} cannot be read"))?;
        Box::new(BufReader::new(open))
    };
    let found = verify(lines, &key).with_context(|| format!("{file} proves nothing"))?;
    say!("{}", on_one_line(&proved(&found)))?;
    Ok(EXIT_DONE)
}

/// Reads the file of a public key: a comment, and the key.
fn public_key(file: &Path) -> anyhow::Result<TrustedKey> {
    let shown = file.display();
    let mut text = String::new();
    File::open(file)
        .and_then(|open| open.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text))
        .with_context(|| format!("{shown} cannot be read"))?;
    let key = text.lines().nth(1).unwrap_or_default().parse::<TrustedKey>();
    key.map_err(anyhow::Error::msg)
        .with_context(|| format!("{shown} has no public key in its second line"))
}

/// Checks evidence: that its lines fit together, and that the key has signed them.
///
/// # Errors
/// When it cannot be read, and an [`EvidenceMisfit`] for the first line that does not fit.
fn verify(mut lines: impl BufRead, key: &TrustedKey) -> anyhow::Result<EvidenceFound> {
    let mut check = EvidenceCheck::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = lines.by_ref().take(EVIDENCE_LINE_BYTES_MAX as u64);
        if limited.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        check.take(&line)?;
    }
    let found = check.finish()?;
    let seal = &found.seal;
    let misfit = |wrong: String| EvidenceMisfit { line: seal.lines + 1, wrong };
    let (id, signer) = (key.id().to_string(), on_one_line(&seal.key).into_owned());
    if signer != id {
        return Err(misfit(format!("it is signed by key {signer}, and not by key {id}")).into());
    }
    if !is_canonical(&seal.signature, &id) {
        return Err(misfit("the signature is not as it was written".to_owned()).into());
    }
    if !key.has_signed(found.message.as_bytes(), &seal.signature) {
        let wrong = format!("the signature does not fit: key {id} has not signed this");
        return Err(misfit(wrong).into());
    }
    Ok(found)
}

/// Whether the text of a signature is the one that a host writes. The first line is signed by nobody, and base64 can
/// say the same bytes in several ways.
fn is_canonical(signature: &str, id: &str) -> bool {
    let parts: Vec<_> = signature.split('\n').collect();
    let [untrusted, first, _, second, ""] = parts[..] else { return false };
    let has_bytes = |text: &str, bytes: usize| {
        STANDARD.decode(text).is_ok_and(|decoded| decoded.len() == bytes)
    };
    untrusted == format!("untrusted comment: signature by key {id}")
        && has_bytes(first, SIGNATURE_BYTES)
        && has_bytes(second, COMMENT_SIGNATURE_BYTES)
}

/// Says what evidence proves.
fn proved(found: &EvidenceFound) -> String {
    let EvidenceFound { head, first_at, last_at, seal, .. } = found;
    let status = if head.ended {
        format!("has ended as {}", head.status)
    } else {
        format!("has not ended and is {}", head.status)
    };
    format!(
        "as of {}, saga {} of {} {status}: {} from {first_at} to {last_at}; signed by key {}",
        head.made_at,
        head.saga,
        head.definition.name,
        counted(head.events, "event"),
        seal.key
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::fs;

    use super::*;

    /// `amends-api-types` writes the same.
    const GOLDEN: &[u8] = include_bytes!("../../../api-types/tests/golden/evidence.jsonl");

    /// The key that has signed it.
    const PUBLIC: &str = "RWQn5vHJSg7GdWFp394CS3Zdgt7jFJeD+tzsy06N4GIr9gU/Tbv2ywtY";

    fn verified(evidence: &[u8], key: &str) -> Result<EvidenceFound, String> {
        let key: TrustedKey = key.parse().unwrap();
        verify(evidence, &key).map_err(|error| error.to_string())
    }

    #[test]
    fn evidence_that_nobody_has_changed_is_proved() {
        let found = verified(GOLDEN, PUBLIC).unwrap();
        assert_eq!(
            proved(&found),
            "as of 2026-11-29T13:15:30.000Z, saga 0198c0de-0000-7000-8000-000000000000 of order has ended as \
             compensated: 3 events from 2026-11-29T13:15:01.000Z to 2026-11-29T13:15:03.000Z; signed by key \
             75C60E4AC9F1E627"
        );
    }

    #[test]
    fn a_single_changed_byte_is_found() {
        let mut evidence = GOLDEN.to_vec();
        let mut line = 1;
        for at in 0..evidence.len() {
            // Another letter, another case, and no letter of ASCII.
            for mask in [0x01, 0x08, 0x20, 0x80] {
                evidence[at] ^= mask;
                let told = verified(&evidence, PUBLIC).err();
                let told = told.unwrap_or_else(|| panic!("byte {at} ^ {mask}: nothing is found"));
                assert!(told.starts_with(&format!("line {line}: ")), "byte {at} ^ {mask}: {told}");
                evidence[at] ^= mask;
            }
            line += u32::from(evidence[at] == b'\n');
        }
        assert_eq!(line, 10);
    }

    #[test]
    fn evidence_that_is_cut_off_anywhere_proves_nothing() {
        for end in 0..GOLDEN.len() {
            let told = verified(&GOLDEN[..end], PUBLIC).unwrap_err();
            assert!(told.contains("cut off"), "{end} bytes: {told}");
        }
        let more = [GOLDEN, b"\n"].concat();
        assert!(verified(&more, PUBLIC).unwrap_err().starts_with("line 10: "));
    }

    #[test]
    fn another_key_proves_nothing() {
        // The id is the same, and the key is not.
        let mut bytes = STANDARD.decode(PUBLIC).unwrap();
        bytes[20] ^= 1;
        let told = verified(GOLDEN, &STANDARD.encode(&bytes)).unwrap_err();
        assert!(told.starts_with("line 9: the signature does not fit"), "{told}");
        bytes[5] ^= 1;
        let told = verified(GOLDEN, &STANDARD.encode(&bytes)).unwrap_err();
        assert!(
            told.starts_with("line 9: it is signed by key 75C60E4AC9F1E627, and not"),
            "{told}"
        );
    }

    #[test]
    fn the_file_of_a_public_key_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("host.pub");
        fs::write(&file, format!("untrusted comment: minisign public key\n{PUBLIC}\n")).unwrap();
        assert_eq!(public_key(&file).unwrap(), PUBLIC.parse::<TrustedKey>().unwrap());
        for wrong in ["", PUBLIC, "a\nb\n"] {
            fs::write(&file, wrong).unwrap();
            let told = public_key(&file).unwrap_err().to_string();
            assert!(told.ends_with("host.pub has no public key in its second line"), "{told}");
        }
    }
}
