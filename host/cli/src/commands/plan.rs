//! `undo-plan`, `exposure`, `breakers`: what stands, what would undo it, and what holds calls back.

use clap::Args;

use amends_api_types::{BreakerRateView, BreakerView, EffectView, ExposureItem, PlannedView};

use crate::commands::client::{Client, HostArgs, Page, escape};
use crate::commands::exit::EXIT_DONE;
use crate::commands::ids::{each_id, say_which, which};
use crate::commands::output::format::Format;
use crate::commands::output::{Look, print_json, print_json_line, print_table_as, say, table};
use crate::commands::sagas::OneSaga;

/// The arguments of `exposure`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  amends exposure\n  amends exposure \
                        0198c0de-0000-7000-8000-000000000000")]
pub(crate) struct Exposure {
    /// The saga's id, eight or more digits of its beginning or end, or @last; - reads ids from
    /// standard input; absent: summed over all sagas
    pub(crate) id: Option<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// The arguments of `breakers`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  amends breakers")]
pub(crate) struct Breakers {
    /// How to print them
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

pub(crate) async fn undo_plan(args: OneSaga) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let look = Look::new();
    each_id(&client, &args.id, async |id| {
        let path = format!("/v1/sagas/{}/undo-plan", escape(id));
        let plan = client.get::<Page<PlannedView>>(&path).await?.items;
        match args.output {
            Format::Json => print_json(&plan)?,
            Format::Jsonl => plan.iter().try_for_each(print_json_line)?,
            Format::Ids => say!("{id}")?,
            Format::Table if plan.is_empty() => {
                say!("{}nothing would be undone", which(&args.id, id))?;
            }
            Format::Table => {
                say_which(&args.id, id)?;
                let mut rows =
                    table(&["wave", "step", "status", "undone by", "digest", "note", "output"]);
                rows.add_rows(plan.iter().map(|planned| planned_row(planned, look)));
                print_table_as(&rows, look)?;
            }
        }
        Ok(EXIT_DONE)
    })
    .await
}

fn planned_row(planned: &PlannedView, look: Look) -> Vec<String> {
    let by = match (&planned.plugin, &planned.child) {
        (Some(plugin), _) => plugin.clone(),
        (None, Some(child)) => look.text(&format!("saga {child}")).into_owned(),
        (None, None) => "nobody".to_owned(),
    };
    let digest = planned.digest.as_deref().unwrap_or_default();
    let output = planned.output.as_ref();
    vec![
        planned.wave.to_string(),
        planned.step.clone(),
        planned.status.clone(),
        by,
        look.digest(digest).to_owned(),
        planned.note.clone().unwrap_or_default(),
        output.map_or_else(|| "not known".to_owned(), |output| output.as_str().to_owned()),
    ]
}

pub(crate) async fn exposure(args: Exposure) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let look = Look::new();
    let Some(asked) = &args.id else { return exposure_of_all(&client, args.output, look).await };
    each_id(&client, asked, async |id| {
        let path = format!("/v1/sagas/{}/exposure", escape(id));
        let effects = client.get::<Page<EffectView>>(&path).await?.items;
        match args.output {
            Format::Json => print_json(&effects)?,
            Format::Jsonl => effects.iter().try_for_each(print_json_line)?,
            Format::Ids => say!("{id}")?,
            Format::Table if effects.is_empty() => say!("{}no effect stands", which(asked, id))?,
            Format::Table => {
                say_which(asked, id)?;
                let mut rows = table(&["step", "stands", "has undo", "output"]);
                let word = |is: bool| if is { "yes" } else { "no" };
                rows.add_rows(effects.iter().map(|effect| {
                    let output = effect.output.as_ref().map(|output| output.as_str().to_owned());
                    vec![
                        effect.step.clone(),
                        if effect.is_certain { "yes" } else { "not known" }.to_owned(),
                        word(effect.has_undo).to_owned(),
                        output.unwrap_or_default(),
                    ]
                }));
                print_table_as(&rows, look)?;
            }
        }
        Ok(EXIT_DONE)
    })
    .await
}

async fn exposure_of_all(client: &Client, format: Format, look: Look) -> anyhow::Result<u8> {
    let sums = client.get::<Page<ExposureItem>>("/v1/exposure").await?.items;
    match format {
        Format::Json => print_json(&sums)?,
        Format::Jsonl => sums.iter().try_for_each(print_json_line)?,
        Format::Ids => {
            let mut names: Vec<_> = sums.iter().map(|sum| &sum.definition).collect();
            names.dedup();
            names.into_iter().try_for_each(|name| say!("{name}"))?;
        }
        Format::Table if sums.is_empty() => {
            say!("no effect of a saga stands that has not completed")?;
        }
        Format::Table => {
            let mut rows =
                table(&["definition", "step", "standing", "not known", "blocked", "abandoned"]);
            rows.add_rows(sums.iter().map(|sum| {
                vec![
                    sum.definition.clone(),
                    sum.step.clone(),
                    sum.standing.to_string(),
                    sum.unknown.to_string(),
                    sum.blocked.to_string(),
                    sum.abandoned.to_string(),
                ]
            }));
            print_table_as(&rows, look)?;
        }
    }
    Ok(EXIT_DONE)
}

/// `3 of 25 calls, opens at 0.5`.
fn rate(rate: &BreakerRateView) -> String {
    let BreakerRateView { calls, calls_failed, failure_rate, .. } = rate;
    format!("{calls_failed} of {calls} calls, opens at {failure_rate}")
}

/// `opened by ada@127.0.0.1`, of a breaker that an operator opened.
pub(crate) fn opened_by(breaker: &BreakerView) -> Option<String> {
    breaker.opened_by.as_ref().map(|who| format!("opened by {who}"))
}

pub(crate) async fn breakers(args: Breakers) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let look = Look::new();
    let breakers = client.get::<Page<BreakerView>>("/v1/breakers").await?.items;
    match args.output {
        Format::Json => print_json(&breakers)?,
        Format::Jsonl => breakers.iter().try_for_each(print_json_line)?,
        Format::Ids => breakers.iter().try_for_each(|breaker| say!("{}", breaker.service))?,
        Format::Table if breakers.is_empty() => {
            say!("no step names a service, so there is no breaker")?;
        }
        Format::Table => {
            let columns = ["service", "state", "failures", "rate", "open until", "on open", "why"];
            let mut rows = table(&columns);
            rows.add_rows(breakers.iter().map(|breaker| {
                vec![
                    breaker.service.clone(),
                    breaker.state.clone(),
                    match breaker.failures_max {
                        Some(max) => format!("{} of {max}", breaker.failures),
                        None => breaker.failures.to_string(),
                    },
                    breaker.rate.as_ref().map(rate).unwrap_or_default(),
                    match (breaker.open_until, opened_by(breaker)) {
                        (Some(until), _) => look.time(until),
                        (None, Some(_)) => "it is closed".to_owned(),
                        (None, None) => String::new(),
                    },
                    breaker.on_open.clone(),
                    // Who holds it open matters more than what failed before.
                    match opened_by(breaker) {
                        Some(by) => {
                            let reason = breaker.opened_reason.as_deref().unwrap_or_default();
                            format!("{by}: {reason}")
                        }
                        None => breaker.last_error.clone().unwrap_or_default(),
                    },
                ]
            }));
            print_table_as(&rows, look)?;
        }
    }
    Ok(EXIT_DONE)
}
