//! `list`, `get`, `history`, `why`.

use clap::Args;

use amends_api_types::{EventView, LIMIT_MAX, SagaView, WhyView};
use amends_engine::on_one_line;

use crate::commands::client::{Client, HostArgs, escape};
use crate::commands::exit::{EXIT_DONE, EXIT_USAGE, Failed};
use crate::commands::filter::{Ended, Filter};
use crate::commands::ids::{each_id, say_which, which};
use crate::commands::output::format::Format;
use crate::commands::output::{
    EVENT_COLUMNS, Look, event_row, print_counts, print_json, print_json_line, print_saga,
    print_sagas, print_table_as, say, table,
};

/// Sagas in a table, unless told otherwise: what a terminal shows.
const TABLE_ROWS: u32 = 50;

/// The arguments of `list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  amends list --status compensated --limit 10\n  amends list \
                        --status running -o ids | amends why -\n  amends list \
                        --status blocked --error-like \"no route\"\n  amends list --stuck\n  amends list \
                        --status blocked --step inventory --code carrier_down --text \"no route\"\n  amends list \
                        --status blocked --group-by step,code\n  amends list \
                        --where customer=C-81 --where 'total>=100'")]
pub(crate) struct List {
    /// At most so many, 0 for all; when it is not given, 50 in a table and else all
    #[arg(long)]
    pub(crate) limit: Option<u32>,
    /// How to print them
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Only those in which this step or its undo failed; --step, --code, --digest and --text are about the
    /// same failure
    #[arg(long, value_name = "STEP", help_heading = "Filters")]
    pub(crate) step: Option<String>,
    /// Only those in which a call of a component failed whose digest begins with these 8 or more digits
    #[arg(long, value_name = "DIGITS", help_heading = "Filters")]
    pub(crate) digest: Option<String>,
    /// Only say how many they are
    #[arg(long, conflicts_with_all = ["limit", "error_like", "stuck"])]
    pub(crate) count: bool,
    /// Count them in groups: by status, definition, reason, by the step and the code of their last failure,
    /// or by an index value; with an example and the oldest start
    #[arg(long, value_name = "WHAT", value_delimiter = ',',
        conflicts_with_all = ["count", "limit", "error_like", "stuck"])]
    pub(crate) group_by: Vec<String>,
    /// Which sagas.
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// The arguments of a verb about one saga.
#[derive(Debug, Args)]
pub(crate) struct OneSaga {
    /// The saga's id, eight or more digits of its beginning or end, or @last; - reads ids from
    /// standard input
    pub(crate) id: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

pub(crate) async fn list(args: List) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let filter = Filter { step: args.step, digest: args.digest, ..args.filter };
    if args.count || !args.group_by.is_empty() {
        if filter.archived {
            let help = "`amends list --archived -o ids | wc -l` counts them, with the other filters that it \
                        takes; `amends store stats` says how many there are in all";
            return Err(
                Failed::with_help(EXIT_USAGE, "archived sagas are not counted", help).into()
            );
        }
        let counts = filter.count(&client, &args.group_by).await?;
        print_counts(&counts, &args.group_by, args.output, Look::new())?;
        return Ok(EXIT_DONE);
    }
    let limit = match (args.limit, args.output) {
        (Some(0), _) | (None, Format::Json | Format::Jsonl | Format::Ids) => u32::MAX,
        (Some(limit), _) => limit,
        (None, Format::Table) => TABLE_ROWS,
    };
    let look = Look::new();
    let ended = match args.output {
        // As they come: there may be more than there is room for.
        Format::Ids | Format::Jsonl => {
            filter
                .each_page(&client, limit, false, |page| print_sagas(&page, args.output, look))
                .await?
        }
        Format::Table | Format::Json => {
            let is_table = args.output == Format::Table;
            let (items, ended) = filter.find(&client, limit, is_table).await?;
            if items.is_empty() && is_table {
                eprintln!("no sagas");
            } else {
                print_sagas(&items, args.output, look)?;
            }
            ended
        }
    };
    if ended == Ended::Limit {
        eprintln!("the newest {limit}, and there are more: --limit 0 lists all");
    }
    Ok(EXIT_DONE)
}

pub(crate) async fn get(args: OneSaga) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let look = Look::new();
    each_id(&client, &args.id, async |id| {
        let saga: SagaView = client.get(&format!("/v1/sagas/{}", escape(id))).await?;
        print_saga(&saga, args.output, look)?;
        Ok(EXIT_DONE)
    })
    .await
}

pub(crate) async fn history(args: OneSaga) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let look = Look::new();
    each_id(&client, &args.id, async |id| {
        let mut events = events(&client, id).await?;
        if args.id == "-" {
            // One of many must say which it is about.
            for event in &mut events {
                event.saga = Some(id.to_owned());
            }
        }
        match args.output {
            Format::Json => print_json(&events)?,
            Format::Jsonl => events.iter().try_for_each(print_json_line)?,
            Format::Ids => say!("{id}")?,
            Format::Table => {
                let mut rows = table(&EVENT_COLUMNS);
                let start = events.first().map_or(look.now(), |first| first.at);
                say_which(&args.id, id)?;
                if look.is_brief() {
                    say!("from {start}")?;
                }
                rows.add_rows(events.iter().map(|event| event_row(event, start, look)));
                print_table_as(&rows, look)?;
            }
        }
        Ok(EXIT_DONE)
    })
    .await
}

/// All events of a saga, page by page.
pub(crate) async fn events(client: &Client, id: &str) -> anyhow::Result<Vec<EventView>> {
    client.get_all(&format!("/v1/sagas/{}/events?limit={LIMIT_MAX}", escape(id))).await
}

pub(crate) async fn why(args: OneSaga) -> anyhow::Result<u8> {
    let client = Client::new(&args.host)?;
    let look = Look::new();
    each_id(&client, &args.id, async |id| {
        let why: WhyView = client.get(&format!("/v1/sagas/{}/why", escape(id))).await?;
        match args.output {
            Format::Json => print_json(&why)?,
            Format::Jsonl => print_json_line(&why)?,
            Format::Ids => say!("{}", why.id)?,
            Format::Table => {
                let sentence = which(&args.id, id) + &on_one_line(&why.sentence);
                say!("{}", look.paragraph(&sentence))?;
                for component in &why.components {
                    say!("{}", look.paragraph(&on_one_line(component)))?;
                }
                let times = [("next", why.next_at), ("deadline", why.deadline_at)];
                for (name, at) in times {
                    let Some(at) = at else { continue };
                    let brief = if look.is_brief() {
                        format!(" ({})", look.time(at))
                    } else {
                        String::new()
                    };
                    say!("{name}: {at}{brief}")?;
                }
                if !why.verbs.is_empty() {
                    say!("you can: {}", on_one_line(&why.verbs.join(", ")))?;
                }
                for step in &why.undos {
                    let step = on_one_line(step);
                    say!("the undo of {step} is due: resolve or skip with --step {step} --undo")?;
                }
            }
        }
        Ok(EXIT_DONE)
    })
    .await
}
