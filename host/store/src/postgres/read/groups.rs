//! Counts of sagas by what they have in common.

use amends_engine::SagaId;

use super::list::{Conditions, failure_conditions, saga_conditions};
use crate::failure_query::FailureQuery;
use crate::postgres::columns::{count, maybe_text, saga, time};
use crate::postgres::connection::Pg;
use crate::postgres::error::Result;
use crate::postgres::text::index_text;
use crate::postgres::writer::Longest;
use crate::saga_groups::{GROUPS_MAX, GroupBy, SagaGroup, SagaGroups};
use crate::saga_query::SagaQuery;

/// Returns the counts, see [`crate::SagaIndex::groups`].
pub(in crate::postgres) async fn groups(
    pg: &Pg,
    query: &SagaQuery,
    by: &[GroupBy],
    longest: &Longest,
) -> Result<SagaGroups> {
    let mut conditions = saga_conditions(query, longest);
    let wheres = conditions.sql();
    let mut columns =
        vec!["sagas.id AS saga_id".to_owned(), "sagas.started_at AS began".to_owned()];
    for (number, by) in by.iter().enumerate() {
        let value = value_of(by, &query.failure, &mut conditions);
        columns.push(format!("{value} AS value{number}"));
    }
    let names: Vec<_> = (0..by.len()).map(|number| format!("value{number}")).collect();
    let (group, list) = if names.is_empty() {
        ("HAVING count(*) > 0".to_owned(), String::new())
    } else {
        (format!("GROUP BY {}", names.join(", ")), format!(", {}", names.join(", ")))
    };
    // The first of a group is that which began first, and of those the one with the smallest id.
    let sql = format!(
        "WITH each AS (SELECT {columns} FROM sagas WHERE {wheres}),
         groups AS (SELECT (array_agg(saga_id ORDER BY began, saga_id))[1] AS example, count(*) AS sagas,
                        min(began) AS oldest {list} FROM each {group})
         SELECT example, sagas, oldest, (SELECT sum(sagas)::int8 FROM groups), (SELECT count(*) FROM groups)
             {list} FROM groups ORDER BY sagas DESC {list} LIMIT {GROUPS_MAX}",
        columns = columns.join(", "),
    );
    let rows = pg.query_values(&sql, &conditions.values).await?;
    let mut counted = SagaGroups::default();
    for row in &rows {
        counted.sagas = count(row, 3)?;
        counted.more = count(row, 4)?.saturating_sub(GROUPS_MAX as u64);
        let mut values = Vec::with_capacity(by.len());
        for (number, by) in by.iter().enumerate() {
            values.push(match by {
                GroupBy::Index(_) => row.try_get::<_, Option<&[u8]>>(5 + number)?.map(index_text),
                GroupBy::Status
                | GroupBy::Definition
                | GroupBy::Reason
                | GroupBy::Step
                | GroupBy::Code => maybe_text(row, 5 + number)?,
            });
        }
        let example: SagaId = saga(row, 0)?;
        let (sagas, oldest) = (count(row, 1)?, time(row, 2)?);
        counted.groups.push(SagaGroup { values, sagas, oldest, example });
    }
    counted.groups.sort_by(|one, other| {
        other.sagas.cmp(&one.sagas).then_with(|| one.values.cmp(&other.values))
    });
    Ok(counted)
}

/// Returns what a saga has, as SQL. Of its failures, the last counts that fulfils the conditions on step,
/// code and component. A block is no failure of a call.
fn value_of(by: &GroupBy, failure: &FailureQuery, conditions: &mut Conditions) -> String {
    let mut of_failure = |value: &str| {
        let failure = FailureQuery { text: None, ..failure.clone() };
        let wheres = failure_conditions(&failure, conditions);
        format!(
            "(SELECT {value} FROM failures AS failed WHERE {wheres} AND failed.saga = sagas.id
              AND failed.call <> 'block' ORDER BY failed.version DESC LIMIT 1)"
        )
    };
    match by {
        GroupBy::Status => "sagas.status".to_owned(),
        GroupBy::Definition => "sagas.definition".to_owned(),
        GroupBy::Reason => "sagas.reason".to_owned(),
        GroupBy::Step => {
            of_failure("failed.step || CASE failed.call WHEN 'compensate' THEN ' undo' ELSE '' END")
        }
        GroupBy::Code => of_failure("failed.code"),
        GroupBy::Index(name) => {
            let name = conditions.mark(name.to_string());
            format!(
                "(SELECT value FROM saga_index WHERE saga = sagas.id AND name = {name} LIMIT 1)"
            )
        }
    }
}
