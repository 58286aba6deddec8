//! Counts of sagas, for people.

use comfy_table::Cell;

use amends_api_types::{SagaCounts, SagaGroupItem};
use amends_engine::on_one_line;

use super::{Look, counted, print_json, print_json_line, print_table_as, say, table};
use crate::commands::output::format::Format;

/// What stands for a value that sagas do not have.
const NONE: &str = "-";

/// The number of sagas, and their groups when they are grouped `by` something.
pub(crate) fn print_counts(
    counts: &SagaCounts,
    by: &[String],
    format: Format,
    look: Look,
) -> anyhow::Result<()> {
    match format {
        Format::Json => return print_json(counts),
        Format::Jsonl if by.is_empty() => return print_json_line(counts),
        Format::Jsonl => return counts.groups.iter().try_for_each(print_json_line),
        Format::Ids => return counts.groups.iter().try_for_each(|group| say!("{}", group.example)),
        Format::Table if by.is_empty() => return say!("{}", counts.sagas),
        Format::Table => {}
    }
    let mut columns = vec!["sagas"];
    columns.extend(by.iter().map(String::as_str));
    columns.extend(["oldest", "example"]);
    let mut rows = table(&columns);
    let ids: Vec<_> = counts.groups.iter().map(|group| group.example.as_str()).collect();
    for (group, id) in counts.groups.iter().zip(look.ids(&ids)) {
        let mut row = vec![Cell::new(group.sagas)];
        row.extend(by.iter().map(|by| Cell::new(value(group, by))));
        row.extend([Cell::new(look.time(group.oldest)), Cell::new(id)]);
        rows.add_row(row);
    }
    if !counts.groups.is_empty() {
        print_table_as(&rows, look)?;
    }
    if counts.more_groups > 0 {
        eprintln!("the largest groups, and there are {} more", counts.more_groups);
    }
    let groups = counted(counts.groups.len() as u64 + counts.more_groups, "group");
    eprintln!("{} in {groups}", counted(counts.sagas, "saga"));
    Ok(())
}

fn value(group: &SagaGroupItem, by: &str) -> String {
    let value = group.by.get(by).and_then(Option::as_deref);
    value.map_or_else(|| NONE.to_owned(), |value| on_one_line(value).into_owned())
}
