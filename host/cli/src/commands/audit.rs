//! `audit`: who asked a host for a change, and what became of it.

use clap::Args;

use amends_api_types::{AuditCheckView, AuditView, LIMIT_DEFAULT, LIMIT_MAX};
use amends_engine::on_one_line;

use crate::commands::client::{Client, HostArgs, Page};
use crate::commands::exit::{EXIT_DONE, EXIT_ERROR};
use crate::commands::output::format::Format;
use crate::commands::output::{Look, print_json, print_json_line, print_table_as, say, table};

/// The arguments of the verb.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  amends audit --limit 10\n  amends audit --after 0 -o jsonl > \
                        audit.jsonl\n  amends audit --verify\n\nThe host needs access control. --verify exits with 1 and \
                        names the first entry that was changed,\nremoved, added or moved. `amends store verify` \
                        does the same for a backup."
)]
pub(crate) struct Audit {
    /// How many entries to show, the last ones: 1 to 1,000
    #[arg(long, value_name = "N", default_value_t = LIMIT_DEFAULT,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(LIMIT_MAX)))]
    pub(crate) limit: u32,
    /// Show all entries after this one instead; 0 for all there are
    #[arg(long, value_name = "NUMBER", conflicts_with = "limit")]
    pub(crate) after: Option<u64>,
    /// Check the chain of all entries instead of showing them
    #[arg(long, conflicts_with_all = ["limit", "after"])]
    pub(crate) verify: bool,
    /// How to print them; `ids` are their numbers
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

pub(crate) async fn run(args: Audit) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    if args.verify {
        return verify(&client, args.output).await;
    }
    let look = Look::new();
    let entries: Vec<AuditView> = match args.after {
        Some(after) => {
            client.get_all(&format!("/v1/audit?limit={LIMIT_MAX}&after={after}")).await?
        }
        None => client.get::<Page<_>>(&format!("/v1/audit?limit={}", args.limit)).await?.items,
    };
    match args.output {
        Format::Json => print_json(&entries)?,
        Format::Jsonl => entries.iter().try_for_each(print_json_line)?,
        Format::Ids => entries.iter().try_for_each(|entry| say!("{}", entry.version))?,
        Format::Table if entries.is_empty() => say!("there are no entries")?,
        Format::Table => {
            let mut rows = table(&["entry", "at", "who", "operation", "outcome", "target"]);
            rows.add_rows(entries.into_iter().map(|entry| row(entry, look)));
            print_table_as(&rows, look)?;
        }
    }
    Ok(EXIT_DONE)
}

/// Has the host check the chain of its audit. Of the formats, `ids` has the number of the last entry that fits.
async fn verify(client: &Client, output: Format) -> anyhow::Result<u8> {
    let check: AuditCheckView = client.get("/v1/audit:verify").await?;
    let AuditCheckView { entries, chain, finding } = &check;
    match output {
        Format::Json => print_json(&check)?,
        Format::Jsonl => print_json_line(&check)?,
        Format::Ids => say!("{entries}")?,
        Format::Table => {
            if let Some(finding) = finding {
                say!("{}", on_one_line(finding))?;
            }
            match chain {
                Some(chain) => {
                    say!("the audit fits up to entry {entries}, which has the chain {chain}")?;
                }
                None if finding.is_none() => say!("there are no entries")?,
                None => {}
            }
        }
    }
    Ok(if finding.is_none() { EXIT_DONE } else { EXIT_ERROR })
}

fn row(entry: AuditView, look: Look) -> Vec<String> {
    let outcome = outcome(&entry);
    let AuditView { version, kind, at, who, address, operation, target, count, code, .. } = entry;
    let is_rate = code.as_deref() == Some("rate_limited");
    let which = if is_rate { "past a rate" } else { "without a token that counts" };
    // Of requests that were counted, nothing else is known.
    let who = who.or(address).unwrap_or_default();
    let target = match count {
        Some(1) => format!("1 request {which}"),
        Some(count) => format!("{count} requests {which}"),
        None => target.unwrap_or(kind),
    };
    vec![version.to_string(), look.time(at), who, operation.unwrap_or_default(), outcome, target]
}

/// What became of a request.
fn outcome(entry: &AuditView) -> String {
    match (entry.status, &entry.code) {
        (Some(status), Some(code)) => format!("{status} {code}"),
        (Some(status), None) => status.to_string(),
        (None, Some(code)) => code.clone(),
        (None, None) => "unknown".to_owned(),
    }
}
