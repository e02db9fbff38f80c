//! Section 3: Redis as a vector database; its index, its documents, its query.

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use embed::ComputeType;
use serde_json::{Value, json};

use super::{Row, Verdict, world::World};
use crate::vectors::bytes;

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "3.1-create-index",
        article: "FT.CREATE idx:articles ON HASH PREFIX 1 article: title TEXT content TEXT embedding VECTOR HNSW FLOAT32 384 COSINE M 16 EF_CONSTRUCTION 200 EF_SEARCH 50",
        peer: "refused as printed: Invalid field type for field `M`; count 12 and EF_RUNTIME are right [wire 01]",
        check: create_index,
    },
    Row {
        id: "3.1-redis-protocol",
        article: "the command as it stands, over the Redis protocol",
        peer: "refused as printed [wire 01]",
        check: |world| {
            world.awaits(
                &["serve"],
                "--resp",
                "no door for the Redis protocol yet; the same schema is made over HTTP (3.1-create-index)",
            )
        },
    },
    Row {
        id: "3.1-prefix",
        article: "PREFIX 1 article: - keys that begin so are indexed",
        peer: "as said [wire 08]",
        check: prefix,
    },
    Row {
        id: "3.1-type-float32",
        article: "TYPE FLOAT32: 32-bit float storage",
        peer: "FLOAT32, FLOAT64, FLOAT16, BFLOAT16 taken; INT8 refused [wire 02]",
        check: |world| {
            let (sent, back, _) = blob_round_trip(world, "FLOAT32", &bytes(&[1.5, -2.25, 3.0e-3, 7.0]))?;
            Ok(Verdict::new(
                sent == back,
                format!("16 bytes given, the same {} bytes given back: {}", back.len(), sent == back),
            ))
        },
    },
    Row {
        id: "3.1-dim-384",
        article: "DIM 384 - the dimension of all-MiniLM-L6-v2",
        peer: "",
        check: |world| {
            let site = world.site()?;
            site.drop("dim")?;
            let info = site.put("/collections/dim", &json!({}))?.expect(201)?;
            let field = vector_field(&info.body)?;
            Ok(Verdict::new(
                field["dim"] == 384,
                format!(
                    "a collection made without saying so has dim {} and model {}",
                    field["dim"], field["embed"]["model"]
                ),
            ))
        },
    },
    Row {
        id: "3.1-cosine-normalises",
        article: "DISTANCE_METRIC COSINE: normalised internally",
        peer: "so it does: a vector scaled by 7 has the same score [wire 04]",
        check: |world| {
            let site = world.site()?;
            site.fresh("scaled", &json!({}))?;
            site.write(
                "scaled",
                &[
                    json!({"id": "unit", "embedding": [0.6, 0.8, 0, 0]}),
                    json!({"id": "sevenfold", "embedding": [4.2, 5.6, 0, 0]}),
                ],
            )?;
            let hits = site.search("scaled", &json!({"vector": [1, 0.05, 0, 0], "k": 2}))?;
            let difference = (hits[0].distance - hits[1].distance).abs();
            Ok(Verdict::new(
                hits.len() == 2 && difference < 1e-6,
                format!("distances of a vector and of 7 times it differ by {difference:.1e}"),
            ))
        },
    },
    Row {
        id: "3.2-store-hash",
        article: "hset(article:{id}, {title, content, embedding}): a document is a hash of fields",
        peer: "",
        check: |world| {
            let site = world.site()?;
            site.fresh("hash", &json!({}))?;
            let document = json!({"title": "Reset your password", "content": "Open settings…", "note": "outside the schema", "embedding": [1, 0, 0, 0]});
            let made = site.put("/collections/hash/documents/12345", &document)?.expect(201)?;
            let back = site.get("/collections/hash/documents/12345")?.expect(200)?;
            let same =
                ["title", "content", "note"].iter().all(|name| back.body["fields"][name] == document[name]);
            Ok(Verdict::new(
                same,
                format!("written ({}), read back field by field: same {same}", made.body["status"]),
            ))
        },
    },
    Row {
        id: "3.2-binary-blob",
        article: "vectors are stored as binary blobs (embedding.tobytes())",
        peer: "a blob of a wrong size is taken in silence and the document is left out of the index [wire 03]",
        check: |world| {
            let (sent, back, found) = blob_round_trip(world, "FLOAT32", &bytes(&[0.1, 0.2, 0.3, 0.4]))?;
            Ok(Verdict::new(
                sent == back && found,
                format!(
                    "base64 of the little-endian blob taken, found by itself: {found}, given back byte for byte: {}",
                    sent == back
                ),
            ))
        },
    },
    Row {
        id: "3.2-normalise",
        article: "ensure embedding is float32 and normalised",
        peer: "",
        check: |world| {
            let model = world.setting.model()?;
            let vector = model.embed(&[model.tokenize("how to reset password?")], ComputeType::F32);
            let norm = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            Ok(Verdict::new(
                (norm - 1.0).abs() < 1e-4,
                format!(
                    "length of an embedding: {norm:.6}; vectors that are brought may have any length (3.1-cosine-normalises)"
                ),
            ))
        },
    },
    Row {
        id: "3.3-knn-query",
        article: "FT.SEARCH \"*=>[KNN 5 @embedding $vec]\" PARAMS 2 vec <blob> SORTBY __embedding_score ASC",
        peer: "refused as printed: Syntax error at offset 1 near >[ (DIALECT 2 is missing) [wire 04]",
        check: |world| {
            let site = world.site()?;
            site.fresh("knn", &json!({}))?;
            let documents: Vec<Value> = (0..20)
                .map(|number| {
                    let angle = f64::from(number) * 0.07;
                    json!({"id": number.to_string(), "title": format!("t{number}"), "embedding": [angle.cos(), angle.sin(), 0, 0]})
                })
                .collect();
            site.write("knn", &documents)?;
            let blob = BASE64_STANDARD.encode(bytes(&[1.0, 0.0, 0.0, 0.0]));
            let hits = site.search("knn", &json!({"vector": {"base64": blob}, "k": 5}))?;
            let ids: Vec<&str> = hits.iter().map(|hit| hit.id.as_str()).collect();
            let ascending = hits.is_sorted_by(|a, b| a.distance <= b.distance);
            Ok(Verdict::new(
                ids == ["0", "1", "2", "3", "4"] && ascending,
                format!("5 nearest of 20, nearest first: {}", ids.join(", ")),
            ))
        },
    },
    Row {
        id: "3.3-return-fields",
        article: "RETURN 2 title content",
        peer: "without the score in RETURN redis-py has no score to read [wire 04]",
        check: |world| {
            let site = world.site()?;
            site.fresh("fields", &json!({}))?;
            site.write(
                "fields",
                &[json!({"id": "a", "title": "t", "content": "c", "note": "n", "embedding": [1, 0, 0, 0]})],
            )?;
            let reply = site.post(
                "/collections/fields/search",
                &json!({"vector": [1, 0, 0, 0], "fields": ["title", "content"]}),
            )?;
            let hit = reply.expect(200)?.body["results"][0].clone();
            let exactly = hit["fields"] == json!({"title": "t", "content": "c"});
            Ok(Verdict::new(
                exactly && hit["score"].is_number(),
                format!("returned: {}, with score {} besides", hit["fields"], hit["score"]),
            ))
        },
    },
    Row {
        id: "3.3-score",
        article: "__embedding_score is a distance: lower is more similar",
        peer: "1 - cosine as a decimal string, sometimes slightly negative; -nan for a zero vector [wire 04]",
        check: |world| {
            let site = world.site()?;
            site.fresh("score", &json!({}))?;
            site.write(
                "score",
                &[
                    json!({"id": "same", "embedding": [1, 0, 0, 0]}),
                    json!({"id": "square", "embedding": [0, 1, 0, 0]}),
                    json!({"id": "opposite", "embedding": [-1, 0, 0, 0]}),
                ],
            )?;
            let hits = site.search("score", &json!({"vector": [1, 0, 0, 0], "k": 3}))?;
            let distances: Vec<f64> = hits.iter().map(|hit| hit.distance).collect();
            let right = distances.len() == 3
                && distances
                    .iter()
                    .zip([0.0, 1.0, 2.0])
                    .all(|(found, expected)| (found - expected).abs() < 1e-6)
                && hits.iter().all(|hit| (hit.score + hit.distance - 1.0).abs() < 1e-6);
            Ok(Verdict::new(
                right,
                format!("same, perpendicular, opposite: distances {distances:.3?}, score = 1 - distance"),
            ))
        },
    },
];

fn create_index(world: &mut World<'_>) -> Result<Verdict> {
    let site = world.site()?;
    site.drop("articles")?;
    let schema = json!({"prefixes": ["article:"], "fields": [
        {"name": "title", "kind": "text"},
        {"name": "content", "kind": "text"},
        {"name": "embedding", "kind": "vector", "algorithm": "hnsw", "type": "FLOAT32", "dim": 384, "metric": "cosine",
         "m": 16, "ef_construction": 200, "ef_search": 50, "embed": {"fields": ["title", "content"], "model": "all-MiniLM-L6-v2"}},
    ]});
    let made = site.put("/collections/articles", &schema)?.expect(201)?;
    let again = site.put("/collections/articles", &schema)?;
    let field = vector_field(&made.body)?;
    let held = field["m"] == 16
        && field["ef_construction"] == 200
        && field["ef_search"] == 50
        && field["dim"] == 384;
    let mut other = schema.clone();
    other["fields"][2]["m"] = json!(32);
    let refused = site.put("/collections/articles", &other)?;
    Ok(Verdict::new(
        held && again.status == 200 && refused.status == 409,
        format!("made; the same again: {}; with M 32: {}", again.status, refused.told()),
    ))
}

fn prefix(world: &mut World<'_>) -> Result<Verdict> {
    let site = world.site()?;
    for collection in ["narrow", "wide"] {
        site.drop(collection)?;
    }
    let schema = |prefix: &str| json!({"prefixes": [prefix], "fields": [{"name": "embedding", "kind": "vector", "dim": 4}]});
    site.put("/collections/narrow", &schema("pre:fix:"))?.expect(201)?;
    site.put("/collections/wide", &schema("pre:"))?.expect(201)?;
    site.write("narrow", &[json!({"id": "inside", "embedding": [1, 0, 0, 0]})])?;
    site.write("wide", &[json!({"id": "outside", "embedding": [1, 0, 0, 0]})])?;
    let ask = json!({"vector": [1, 0, 0, 0], "k": 10});
    let narrow: Vec<String> = site.search("narrow", &ask)?.into_iter().map(|hit| hit.id).collect();
    let mut wide: Vec<String> = site.search("wide", &ask)?.into_iter().map(|hit| hit.id).collect();
    wide.sort();
    Ok(Verdict::new(
        narrow == ["inside"] && wide == ["fix:inside", "outside"],
        format!("pre:fix: finds {narrow:?}; pre: finds {wide:?}"),
    ))
}

/// A blob of four values sent, given back, and whether it is found by itself.
pub(super) fn blob_round_trip(
    world: &mut World<'_>,
    element: &str,
    blob: &[u8],
) -> Result<(Vec<u8>, Vec<u8>, bool)> {
    let site = world.site()?;
    site.fresh("blob", &json!({"type": element}))?;
    let sent = json!({"base64": BASE64_STANDARD.encode(blob)});
    site.write(
        "blob",
        &[json!({"id": "a", "embedding": sent}), json!({"id": "b", "embedding": [-1, -1, -1, -1]})],
    )?;
    let back = site.get("/collections/blob/documents/a?vectors=true")?.expect(200)?;
    let text = back.body["fields"]["embedding"]["base64"]
        .as_str()
        .with_context(|| format!("no blob in {}", back.body))?;
    let hits = site.search("blob", &json!({"vector": sent, "k": 1}))?;
    let found = hits.first().is_some_and(|hit| hit.id == "a" && hit.distance.abs() < 1e-3);
    Ok((blob.to_vec(), BASE64_STANDARD.decode(text)?, found))
}

/// The vector field in what is told of a collection.
pub(super) fn vector_field(info: &Value) -> Result<Value> {
    let fields = info["schema"]["fields"].as_array().with_context(|| format!("no fields in {info}"))?;
    fields
        .iter()
        .find(|field| field["kind"] == "vector")
        .cloned()
        .with_context(|| format!("no vector field in {info}"))
}
