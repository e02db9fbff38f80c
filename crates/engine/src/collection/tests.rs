//! Changes published during a backfill.

use index::{Metric, VectorType};

use super::*;
use crate::{
    attributes::DocumentAttributes,
    schema::{FieldKind, FieldSchema},
};

fn collection() -> Collection {
    let kind = FieldKind::Vector(VectorSchema {
        algorithm: Algorithm::Flat,
        vector_type: VectorType::Float32,
        quantization: Quantization::None,
        dim: 1,
        metric: Metric::L2,
        embed: None,
    });
    let fields = vec![FieldSchema { name: "v".to_owned(), kind }];
    let schema = Schema { prefixes: vec![Vec::new()], fields, ttl: None };
    Collection::new(CollectionVersion { id: 1, version: 1 }, Arc::new(schema), Cpu::detect())
}

fn upserted(doc: u64, seq: Seq, vector: FieldVectors) -> DocumentChange {
    let projection = Projection { attributes: DocumentAttributes::default(), vectors: vec![vector] };
    DocumentChange {
        doc: DocId(doc),
        seq,
        kind: DocumentChangeKind::Upserted { expires_at_ms: None, projection },
    }
}

fn embedded(doc: u64, seq: Seq, value: f32) -> DocumentChange {
    DocumentChange {
        doc: DocId(doc),
        seq,
        kind: DocumentChangeKind::Embedded {
            vectors: vec![(0, PassageVector { passage: 0, values: vec![value] })],
        },
    }
}

fn vector(collection: &Collection, doc: u64) -> Option<Vec<f32>> {
    let ordinal = collection.state().ordinals.ordinal(DocId(doc))?;
    collection.indexes[0].vector(ordinal)
}

#[test]
fn a_vector_published_before_its_document_is_loaded_does_not_replace_it() {
    let collection = collection();
    collection.begin_backfill();
    collection.backfill(vec![upserted(1, 1, FieldVectors::Pending)]);
    // For a loaded document, for two that are not loaded yet, one of which is then written, and for one that is
    // deleted.
    collection.publish((1..=4).map(|doc| embedded(doc, 10 + doc, doc as f32)).collect(), 14);
    collection.publish(vec![upserted(3, 15, FieldVectors::single(vec![30.0]))], 15);
    collection
        .publish(vec![DocumentChange { doc: DocId(4), seq: 16, kind: DocumentChangeKind::Removed }], 16);
    collection.backfill((2..=4).map(|doc| upserted(doc, doc, FieldVectors::Pending)).collect());
    collection.end_backfill(16);

    let vectors = [1, 2, 3, 4].map(|doc| vector(&collection, doc));
    assert_eq!(vectors, [Some(vec![1.0]), Some(vec![2.0]), Some(vec![30.0]), None]);
    let state = collection.state();
    assert_eq!((state.ordinals.live().len(), state.unembedded_count(), state.published), (3, 0, 16));
}
