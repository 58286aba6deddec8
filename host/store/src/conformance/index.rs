//! Lists of sagas by their index values.

use std::collections::BTreeMap;

use amends_engine::{IndexName, IndexValue, SagaStatus};
use serde_json::{Value, json};

use super::fixture::{at, definition, saga_id, start};
use super::location::{StoreLocation, TestStore};
use super::model::Model;
use crate::{GroupBy, IndexCondition, SagaQuery, ToArchive};

fn index(values: &Value) -> BTreeMap<IndexName, IndexValue> {
    let values = values.as_object().unwrap().iter();
    let values = values
        .filter_map(|(name, value)| Some((name.parse().unwrap(), IndexValue::of(value.clone())?)));
    values.collect()
}

/// Sagas with values of each kind, many of them equal; some without.
async fn fill(store: &TestStore, sagas: u32) -> Model {
    let mut model = Model::default();
    for number in 0..sagas {
        let mut append = start(number);
        let row = append.row.as_mut().unwrap();
        row.tags.insert("country".to_owned(), (number % 2).to_string());
        let order = match number % 3 {
            0 => json!(format!("PO-{}", number / 10)),
            1 => json!(number / 10),
            _ => json!(number.is_multiple_of(2)),
        };
        let total = match number % 4 {
            0 => json!(f64::from(number) + 0.25),
            1 => json!(number),
            2 => json!(9_007_199_254_740_992_i64 + i64::from(number)),
            _ => json!(-1e300),
        };
        row.index = match number % 5 {
            4 => BTreeMap::new(),
            3 => index(&json!({ "order": order })),
            _ => {
                index(&json!({ "order": order, "total": total, "text": "naïve \u{10ffff}\u{0} %" }))
            }
        };
        if number % 7 == 0 {
            row.status = SagaStatus::Blocked;
        }
        model.append(&append).unwrap();
        store.append(append).await.unwrap();
    }
    model
}

const CONDITIONS: [&[&str]; 26] = [
    &["order=PO-1"],
    &["order=1"],
    &["order=\"1\""],
    &["order=true"],
    &["order=\"true\""],
    &["order^=PO-"],
    &["order^=P"],
    &["order^="],
    &["order>=PO-2"],
    &["order<PO-2"],
    &["order>1"],
    &["order<=1"],
    &["order>true"],
    &["total>=20", "total<30"],
    &["total<30", "total>=20"],
    &["total=20.25"],
    &["total=21.0"],
    &["total>9007199254740992"],
    &["total=9007199254741002"],
    &["total<0"],
    &["total>=20", "order^=PO"],
    &["order=2", "total>1"],
    &["order=2", "order<3"],
    &["text^=naïve \u{10ffff}"],
    &["text=naïve \u{10ffff}\u{0} %"],
    &["nothing=1"],
];

/// Each condition alone and with other filters, in pages: the same sagas as by looking at all.
pub async fn lists_by_index_values(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let model = fill(&store, 120).await;
    let (mut found, mut fruitful) = (0, 0);
    for conditions in CONDITIONS {
        let conditions: Vec<_> =
            conditions.iter().map(|text| IndexCondition::parse(text).unwrap()).collect();
        let mut is_fruitful = false;
        for tags in [vec![], vec![("country".to_owned(), "1".to_owned())]] {
            for statuses in [vec![], vec![SagaStatus::Blocked, SagaStatus::Running]] {
                for name in [None, Some(definition("order-fulfillment"))] {
                    let mut query = SagaQuery {
                        index: conditions.clone(),
                        statuses: statuses.clone(),
                        definition: name,
                        tags: tags.clone(),
                        started_after: statuses.first().map(|_| at(3)),
                        limit: 4,
                        ..SagaQuery::default()
                    };
                    let by = [GroupBy::Index("order".parse().unwrap()), GroupBy::Status];
                    let groups = store.sagas().groups(query.clone(), by.to_vec()).await.unwrap();
                    let all = SagaQuery { limit: u32::MAX, ..query.clone() };
                    assert_eq!(groups.sagas, model.list(&all).len() as u64, "{query:?}");
                    let mut paged = Vec::new();
                    loop {
                        let page = store.sagas().list(query.clone()).await.unwrap();
                        assert_eq!(page, model.list(&query), "{query:?}");
                        let Some(last) = page.last() else { break };
                        query.before = Some(last.id);
                        paged.extend(page);
                    }
                    is_fruitful |= !paged.is_empty();
                    found += paged.len();
                }
            }
        }
        fruitful += usize::from(is_fruitful);
    }
    // Four find nothing: texts that are numbers or bools here, and a name that no saga has.
    assert!(
        found > 500 && fruitful == CONDITIONS.len() - 4,
        "it shows little: {found}, {fruitful}"
    );

    let by = vec![GroupBy::Index("order".parse().unwrap())];
    let all = SagaQuery { limit: u32::MAX, ..SagaQuery::default() };
    let mut groups = store.sagas().groups(all.clone(), by.clone()).await.unwrap();
    let mut expected = model.groups(&all, &by);
    groups.groups.sort_by(|one, other| one.values.cmp(&other.values));
    expected.groups.sort_by(|one, other| one.values.cmp(&other.values));
    assert_eq!(groups, expected);
    store.close().await.unwrap();
}

/// A page that is read later has no saga of an earlier page, and misses none that was there, while
/// sagas start. An archived saga is not found, and is again once it is back.
pub async fn keeps_cursors_of_index_values(location: &dyn StoreLocation) {
    let store = location.open().await.unwrap();
    let mut model = fill(&store, 60).await;
    for condition in ["order^=PO-", "order=2", "total>=10"] {
        let index = vec![IndexCondition::parse(condition).unwrap()];
        let mut query = SagaQuery { index, limit: 2, ..SagaQuery::default() };
        let expected = model.list(&SagaQuery { limit: u32::MAX, ..query.clone() });
        assert!(expected.len() > 2, "{expected:?}");
        let mut paged = Vec::new();
        loop {
            let page = store.sagas().list(query.clone()).await.unwrap();
            let Some(last) = page.last() else { break };
            query.before = Some(last.id);
            paged.extend(page);
            let mut append = start(u32::try_from(model.log().len()).unwrap());
            append.row.as_mut().unwrap().index = expected[0].index.clone();
            model.append(&append).unwrap();
            store.append(append).await.unwrap();
        }
        assert_eq!(paged, expected);
    }

    let mut ended = start(10_000);
    let row = ended.row.as_mut().unwrap();
    (row.status, row.ended_at) = (SagaStatus::Completed, Some(at(10_001)));
    row.index = index(&json!({ "order": "the one" }));
    store.append(ended).await.unwrap();
    let the_one = SagaQuery {
        index: vec![IndexCondition::parse("order=the one").unwrap()],
        limit: 10,
        ..SagaQuery::default()
    };
    let before = store.sagas().list(the_one.clone()).await.unwrap();
    assert_eq!(before.len(), 1);
    let id = saga_id(10_000);
    let to_archive =
        ToArchive { id, version: amends_engine::Version(1), after: None, is_late: false };
    let summary = store.archive().archive(vec![to_archive]).await.unwrap();
    assert_eq!(summary.sagas, 1);
    assert_eq!(store.sagas().list(the_one.clone()).await.unwrap(), []);
    assert!(store.archive().bring_back(id).await.unwrap());
    assert_eq!(store.sagas().list(the_one).await.unwrap(), before);
    store.close().await.unwrap();
}
