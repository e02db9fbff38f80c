//! Section 3: Redis as a vector database; its index, its documents, its query.

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use embed::ComputeType;
use serde_json::{Value, json};

use super::{Claim, Verdict, fixtures::Fixtures};
use crate::vectors::bytes;

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "3.1-create-index",
        article: "FT.CREATE idx:articles ON HASH PREFIX 1 article: title TEXT content TEXT embedding VECTOR HNSW FLOAT32 384 COSINE M 16 EF_CONSTRUCTION 200 EF_SEARCH 50",
        peer: "rejected as printed: Invalid field type for field `M`; count 12 and EF_RUNTIME are correct [wire 01]",
        check: create_index,
    },
    Claim {
        id: "3.1-redis-protocol",
        article: "the command as printed, over the Redis protocol",
        peer: "rejected as printed [wire 01]",
        check: |fixtures| {
            fixtures.not_available_yet(
                &["serve"],
                "--resp",
                "the Redis protocol is not supported yet; the same schema is created over HTTP (3.1-create-index)",
            )
        },
    },
    Claim {
        id: "3.1-prefix",
        article: "PREFIX 1 article: - keys that begin so are indexed",
        peer: "confirmed [wire 08]",
        check: prefix,
    },
    Claim {
        id: "3.1-type-float32",
        article: "TYPE FLOAT32: 32-bit float storage",
        peer: "FLOAT32, FLOAT64, FLOAT16, BFLOAT16 accepted; INT8 rejected [wire 02]",
        check: |fixtures| {
            let (sent, back, _) = blob_round_trip(fixtures, "FLOAT32", &bytes(&[1.5, -2.25, 3.0e-3, 7.0]))?;
            Ok(Verdict::new(
                sent == back,
                format!("16 bytes written, the same {} bytes read back: {}", back.len(), sent == back),
            ))
        },
    },
    Claim {
        id: "3.1-dim-384",
        article: "DIM 384 - the dimension of all-MiniLM-L6-v2",
        peer: "",
        check: |fixtures| {
            let api = fixtures.api()?;
            api.drop_collection("dim")?;
            let info = api.put("/collections/dim", &json!({}))?.expect(201)?;
            let field = vector_field(&info.body)?;
            Ok(Verdict::new(
                field["dim"] == 384,
                format!(
                    "a collection created with defaults has dim {} and model {}",
                    field["dim"], field["embed"]["model"]
                ),
            ))
        },
    },
    Claim {
        id: "3.1-cosine-normalises",
        article: "DISTANCE_METRIC COSINE: normalised internally",
        peer: "confirmed: a vector scaled by 7 has the same score [wire 04]",
        check: |fixtures| {
            let api = fixtures.api()?;
            api.recreate("scaled", &json!({}))?;
            api.write(
                "scaled",
                &[
                    json!({"id": "unit", "embedding": [0.6, 0.8, 0, 0]}),
                    json!({"id": "sevenfold", "embedding": [4.2, 5.6, 0, 0]}),
                ],
            )?;
            let hits = api.search("scaled", &json!({"vector": [1, 0.05, 0, 0], "k": 2}))?;
            let difference = (hits[0].distance - hits[1].distance).abs();
            Ok(Verdict::new(
                hits.len() == 2 && difference < 1e-6,
                format!("distances of a vector and of 7 times it differ by {difference:.1e}"),
            ))
        },
    },
    Claim {
        id: "3.2-store-hash",
        article: "hset(article:{id}, {title, content, embedding}): a document is a hash of fields",
        peer: "",
        check: |fixtures| {
            let api = fixtures.api()?;
            api.recreate("hash", &json!({}))?;
            let document = json!({"title": "Reset your password", "content": "Open settings…", "note": "outside the schema", "embedding": [1, 0, 0, 0]});
            let created = api.put("/collections/hash/documents/12345", &document)?.expect(201)?;
            let back = api.get("/collections/hash/documents/12345")?.expect(200)?;
            let same =
                ["title", "content", "note"].iter().all(|name| back.body["fields"][name] == document[name]);
            Ok(Verdict::new(
                same,
                format!("written ({}), read back with the same fields: {same}", created.body["status"]),
            ))
        },
    },
    Claim {
        id: "3.2-binary-blob",
        article: "vectors are stored as binary blobs (embedding.tobytes())",
        peer: "a blob of the wrong size is accepted silently, and the document is missing from the index [wire 03]",
        check: |fixtures| {
            let (sent, back, found) = blob_round_trip(fixtures, "FLOAT32", &bytes(&[0.1, 0.2, 0.3, 0.4]))?;
            Ok(Verdict::new(
                sent == back && found,
                format!(
                    "base64 of the little-endian blob accepted, found by its own vector: {found}, read back byte for byte: {}",
                    sent == back
                ),
            ))
        },
    },
    Claim {
        id: "3.2-normalise",
        article: "ensure embedding is float32 and normalised",
        peer: "",
        check: |fixtures| {
            let model = fixtures.global.model()?;
            let vector = model.embed(&[model.tokenize("how to reset password?")], ComputeType::F32);
            let norm = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            Ok(Verdict::new(
                (norm - 1.0).abs() < 1e-4,
                format!(
                    "norm of an embedding: {norm:.6}; client vectors may have any norm (3.1-cosine-normalises)"
                ),
            ))
        },
    },
    Claim {
        id: "3.3-knn-query",
        article: "FT.SEARCH \"*=>[KNN 5 @embedding $vec]\" PARAMS 2 vec <blob> SORTBY __embedding_score ASC",
        peer: "rejected as printed: Syntax error at offset 1 near >[ (DIALECT 2 is missing) [wire 04]",
        check: |fixtures| {
            let api = fixtures.api()?;
            api.recreate("knn", &json!({}))?;
            let documents: Vec<Value> = (0..20)
                .map(|number| {
                    let angle = f64::from(number) * 0.07;
                    json!({"id": number.to_string(), "title": format!("t{number}"), "embedding": [angle.cos(), angle.sin(), 0, 0]})
                })
                .collect();
            api.write("knn", &documents)?;
            let blob = BASE64_STANDARD.encode(bytes(&[1.0, 0.0, 0.0, 0.0]));
            let hits = api.search("knn", &json!({"vector": {"base64": blob}, "k": 5}))?;
            let ids: Vec<&str> = hits.iter().map(|hit| hit.id.as_str()).collect();
            let ascending = hits.is_sorted_by(|a, b| a.distance <= b.distance);
            Ok(Verdict::new(
                ids == ["0", "1", "2", "3", "4"] && ascending,
                format!("5 nearest of 20, nearest first: {}", ids.join(", ")),
            ))
        },
    },
    Claim {
        id: "3.3-return-fields",
        article: "RETURN 2 title content",
        peer: "without the score in RETURN, redis-py returns no score [wire 04]",
        check: |fixtures| {
            let api = fixtures.api()?;
            api.recreate("fields", &json!({}))?;
            api.write(
                "fields",
                &[json!({"id": "a", "title": "t", "content": "c", "note": "n", "embedding": [1, 0, 0, 0]})],
            )?;
            let response = api.post(
                "/collections/fields/search",
                &json!({"vector": [1, 0, 0, 0], "fields": ["title", "content"]}),
            )?;
            let hit = response.expect(200)?.body["results"][0].clone();
            let has_fields = hit["fields"] == json!({"title": "t", "content": "c"});
            Ok(Verdict::new(
                has_fields && hit["score"].is_number(),
                format!("returned: {}, and score {}", hit["fields"], hit["score"]),
            ))
        },
    },
    Claim {
        id: "3.3-score",
        article: "__embedding_score is a distance: lower is more similar",
        peer: "1 - cosine as a decimal string, sometimes slightly negative; -nan for a zero vector [wire 04]",
        check: |fixtures| {
            let api = fixtures.api()?;
            api.recreate("score", &json!({}))?;
            api.write(
                "score",
                &[
                    json!({"id": "same", "embedding": [1, 0, 0, 0]}),
                    json!({"id": "square", "embedding": [0, 1, 0, 0]}),
                    json!({"id": "opposite", "embedding": [-1, 0, 0, 0]}),
                ],
            )?;
            let hits = api.search("score", &json!({"vector": [1, 0, 0, 0], "k": 3}))?;
            let distances: Vec<f64> = hits.iter().map(|hit| hit.distance).collect();
            let is_correct = distances.len() == 3
                && distances
                    .iter()
                    .zip([0.0, 1.0, 2.0])
                    .all(|(found, expected)| (found - expected).abs() < 1e-6)
                && hits.iter().all(|hit| (hit.score + hit.distance - 1.0).abs() < 1e-6);
            Ok(Verdict::new(
                is_correct,
                format!("same, perpendicular, opposite: distances {distances:.3?}, score = 1 - distance"),
            ))
        },
    },
];

fn create_index(fixtures: &mut Fixtures<'_>) -> Result<Verdict> {
    let api = fixtures.api()?;
    api.drop_collection("articles")?;
    let schema = json!({"prefixes": ["article:"], "fields": [
        {"name": "title", "kind": "text"},
        {"name": "content", "kind": "text"},
        {"name": "embedding", "kind": "vector", "algorithm": "hnsw", "type": "FLOAT32", "dim": 384, "metric": "cosine",
         "m": 16, "ef_construction": 200, "ef_search": 50, "embed": {"fields": ["title", "content"], "model": "all-MiniLM-L6-v2"}},
    ]});
    let created = api.put("/collections/articles", &schema)?.expect(201)?;
    let again = api.put("/collections/articles", &schema)?;
    let field = vector_field(&created.body)?;
    let has_parameters = field["m"] == 16
        && field["ef_construction"] == 200
        && field["ef_search"] == 50
        && field["dim"] == 384;
    let mut other = schema.clone();
    other["fields"][2]["m"] = json!(32);
    let rejected = api.put("/collections/articles", &other)?;
    Ok(Verdict::new(
        has_parameters && again.status == 200 && rejected.status == 409,
        format!("created; the same schema again: {}; with M 32: {}", again.status, rejected.summary()),
    ))
}

fn prefix(fixtures: &mut Fixtures<'_>) -> Result<Verdict> {
    let api = fixtures.api()?;
    for collection in ["narrow", "wide"] {
        api.drop_collection(collection)?;
    }
    let schema = |prefix: &str| json!({"prefixes": [prefix], "fields": [{"name": "embedding", "kind": "vector", "dim": 4}]});
    api.put("/collections/narrow", &schema("pre:fix:"))?.expect(201)?;
    api.put("/collections/wide", &schema("pre:"))?.expect(201)?;
    api.write("narrow", &[json!({"id": "inside", "embedding": [1, 0, 0, 0]})])?;
    api.write("wide", &[json!({"id": "outside", "embedding": [1, 0, 0, 0]})])?;
    let search = json!({"vector": [1, 0, 0, 0], "k": 10});
    let narrow: Vec<String> = api.search("narrow", &search)?.into_iter().map(|hit| hit.id).collect();
    let mut wide: Vec<String> = api.search("wide", &search)?.into_iter().map(|hit| hit.id).collect();
    wide.sort();
    Ok(Verdict::new(
        narrow == ["inside"] && wide == ["fix:inside", "outside"],
        format!("pre:fix: finds {narrow:?}; pre: finds {wide:?}"),
    ))
}

/// Writes a blob of four values; returns the blob written, the blob read back, and whether a search by it finds it.
pub(super) fn blob_round_trip(
    fixtures: &mut Fixtures<'_>,
    element: &str,
    blob: &[u8],
) -> Result<(Vec<u8>, Vec<u8>, bool)> {
    let api = fixtures.api()?;
    api.recreate("blob", &json!({"type": element}))?;
    let sent = json!({"base64": BASE64_STANDARD.encode(blob)});
    api.write(
        "blob",
        &[json!({"id": "a", "embedding": sent}), json!({"id": "b", "embedding": [-1, -1, -1, -1]})],
    )?;
    let back = api.get("/collections/blob/documents/a?vectors=true")?.expect(200)?;
    let text = back.body["fields"]["embedding"]["base64"]
        .as_str()
        .with_context(|| format!("no blob in {}", back.body))?;
    let hits = api.search("blob", &json!({"vector": sent, "k": 1}))?;
    let found = hits.first().is_some_and(|hit| hit.id == "a" && hit.distance.abs() < 1e-3);
    Ok((blob.to_vec(), BASE64_STANDARD.decode(text)?, found))
}

/// The vector field in a collection's description.
pub(super) fn vector_field(info: &Value) -> Result<Value> {
    let fields = info["schema"]["fields"].as_array().with_context(|| format!("no fields in {info}"))?;
    fields
        .iter()
        .find(|field| field["kind"] == "vector")
        .cloned()
        .with_context(|| format!("no vector field in {info}"))
}
