//! Section 3.3: filters, the part of a query before the arrow.

use anyhow::Result;
use serde_json::{Value, json};

use super::{Claim, Verdict, fixtures::Fixtures};

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "3.3-filter",
        article: "\"*=>[KNN ...\": any filter may replace *",
        peer: "confirmed [wire 04]",
        check: filters,
    },
    Claim {
        id: "3.3-bad-filter",
        article: "\"*=>[KNN ...\": an invalid filter is rejected",
        peer: "",
        check: |fixtures| {
            let api = fixtures.api()?;
            api.recreate("unknown", &json!({}))?;
            let response = api.post(
                "/collections/unknown/search",
                &json!({"vector": [1, 0, 0, 0], "filter": "@colour:{red}"}),
            )?;
            let broken = api.post(
                "/collections/unknown/search",
                &json!({"vector": [1, 0, 0, 0], "filter": "@title:{"}),
            )?;
            Ok(Verdict::new(
                response.status == 422 && response.mentions("colour") && broken.status == 422,
                format!("{}; {}", response.summary(), broken.summary()),
            ))
        },
    },
];

/// Compares TAG, NUMERIC, alternatives and negation with a plain loop over the documents.
fn filters(fixtures: &mut Fixtures<'_>) -> Result<Verdict> {
    let api = fixtures.api()?;
    api.drop_collection("filters")?;
    let schema = json!({"fields": [
        {"name": "category", "kind": "tag"},
        {"name": "year", "kind": "numeric"},
        {"name": "embedding", "kind": "vector", "dim": 4},
    ]});
    api.put("/collections/filters", &schema)?.expect(201)?;
    let categories = ["billing", "account", "api"];
    let documents: Vec<Value> = (0..300)
        .map(|number: usize| {
            json!({"id": number.to_string(), "category": categories[number % 3], "year": 2000 + number % 30,
                   "embedding": [1.0, number as f64 / 300.0, 0, 0]})
        })
        .collect();
    api.write("filters", &documents)?;
    type Matches = fn(usize) -> bool;
    let cases: [(&str, Matches); 4] = [
        ("@category:{billing} @year:[2020 +inf]", |n| n % 3 == 0 && n % 30 >= 20),
        ("@category:{billing|api}", |n| n % 3 != 1),
        ("-@category:{billing}", |n| n % 3 != 0),
        ("(@year:[2000 2000] | @year:[(2028 2029])", |n| n % 30 == 0 || n % 30 == 29),
    ];
    for (filter, matches) in cases {
        let hits = api.search("filters", &json!({"vector": [1, 0, 0, 0], "k": 1000, "filter": filter}))?;
        // Smaller numbers are nearer to the query, so the expected order is that of the ids.
        let expected: Vec<String> = (0..300).filter(|n| matches(*n)).map(|n| n.to_string()).collect();
        let found: Vec<String> = hits.into_iter().map(|hit| hit.id).collect();
        if found != expected {
            return Ok(Verdict::new(
                false,
                format!("{filter} finds {} documents, expected {}", found.len(), expected.len()),
            ));
        }
    }
    Ok(Verdict::new(
        true,
        format!("{} filters over 300 documents: exactly the matching ones, in order", cases.len()),
    ))
}
