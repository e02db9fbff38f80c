//! What is there after closing, after a kill, and for a second process.

use engine::{Engine, Expected, FieldKind, Metric, Op, OpenError, Quantization, Query};

use crate::world::*;

fn world() -> World {
    let world = World::new();
    world.engine().create_collection("docs", schema("doc:", hnsw(), Metric::Cosine)).unwrap();
    world
}

fn fill(world: &World, numbers: impl Iterator<Item = u64>) {
    let ops: Vec<Op> = numbers
        .map(|number| {
            let category = format!("c{}", number % 3);
            let values: &[(&str, &[u8])] = &[
                ("category", category.as_bytes()),
                ("year", &number.to_string().into_bytes()),
                ("v", &blob(&vector(number))),
            ];
            put(&format!("doc:{number}"), values)
        })
        .collect();
    assert!(world.engine().write(ops).iter().all(Result::is_ok));
}

/// Everything a search, a filter, a scroll can say, in words to compare.
fn answers(world: &World) -> Vec<String> {
    let mut answers = vec![format!("{:?}", world.scroll("docs", None))];
    for text in ["*", "@category:{c1}", "-@category:{c1}", "@year:[50 80]", "@year:[(50 (51]"] {
        let filter = world.filter("docs", text);
        for number in [3, 77] {
            let wanted = vector(number);
            let exact = Query { exact: true, filter: Some(&filter), ..query("docs", &wanted, 25) };
            let hits = world.engine().search(&exact).unwrap().hits;
            answers.push(format!("{text}: {hits:?}"));
        }
    }
    let info = world.engine().collection("docs").unwrap();
    answers.push(format!("{} documents, {} vectors", info.documents, info.vectors));
    answers
}

#[test]
fn everything_is_there_again_with_and_without_snapshot_and_after_a_kill() {
    let mut world = world();
    fill(&world, 0..120);
    for number in (0..120).step_by(7) {
        world.delete(&format!("doc:{number}"));
    }
    let before = answers(&world);

    world.crash();
    assert_eq!(answers(&world), before, "killed before there was a snapshot");
    world.settle();
    world.reopen();
    assert_eq!(answers(&world), before, "closed and opened");
    world.close();
    std::fs::remove_dir_all(world.options.data_dir.join("snapshots")).unwrap();
    world.open();
    assert_eq!(answers(&world), before, "opened without snapshot");
    assert_eq!(world.engine().warnings(), [] as [&str; 0]);
}

#[test]
fn a_snapshot_is_caught_up_with_what_was_written_since() {
    let mut world = world();
    fill(&world, 0..100);
    world.settle();
    world.reopen();
    // Updates, deletes whose ordinals others take, documents that lose their vector, new ones.
    fill(&world, (0..100).step_by(9));
    for number in (1..100).step_by(5) {
        world.delete(&format!("doc:{number}"));
    }
    fill(&world, 200..240);
    fill(&world, [6, 11].into_iter());
    world.put("doc:2", &[("category", b"c1")]);
    world.delete("doc:3");
    world.put("doc:3", &[("v", &blob(&vector(333)))]);
    let before = answers(&world);
    world.crash();
    assert_eq!(answers(&world), before);
    assert_eq!(world.engine().warnings(), [] as [&str; 0]);
    world.reopen();
    assert_eq!(answers(&world), before);
}

#[test]
fn sequence_numbers_guard_across_a_restart() {
    let mut world = world();
    let written = world.put("doc:1", &[("title", b"x")]);
    world.reopen();
    let stale = Op::Delete { key: b"doc:1".to_vec(), expected: Expected::Seq(written.seq + 1) };
    assert!(world.write(stale).is_err());
    let right = Op::Delete { key: b"doc:1".to_vec(), expected: Expected::Seq(written.seq) };
    assert!(world.write(right).unwrap().existed);
    assert!(world.put("doc:1", &[]).seq > written.seq);
}

#[test]
fn a_directory_has_one_engine_at_a_time() {
    let mut world = world();
    let error = Engine::open(world.options.clone()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }));
    let message = error.to_string();
    assert!(message.contains(world.dir.path().join("lock").to_str().unwrap()), "{message}");
    assert!(message.contains("in use by another Nearfield process"), "{message}");
    world.close();
    Engine::open(world.options.clone()).unwrap();
}

#[test]
fn a_path_that_is_no_directory_is_named() {
    let world = World::new();
    let file = world.dir.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    let mut options = world.options.clone();
    options.data_dir = file.join("data");
    let message = Engine::open(options).unwrap_err().to_string();
    assert!(message.contains(file.to_str().unwrap()), "{message}");
}

/// A collection held in codes finds the same documents as one that is not, before and after
/// closing, and gives vectors back as they were given.
#[test]
fn a_quantized_collection_answers_the_same_after_reopening() {
    for quantization in [Quantization::Int8, Quantization::Int4] {
        let mut world = world();
        let mut quantized = schema("doc:", hnsw(), Metric::Cosine);
        let FieldKind::Vector(vector_schema) = &mut quantized.fields.last_mut().unwrap().kind else {
            panic!("the last field is the vector")
        };
        vector_schema.quantization = quantization;
        world.engine().create_collection("codes", quantized).unwrap();
        fill(&world, 0..300);
        world.settle();
        let answers = |world: &World, collection: &str| -> Vec<Vec<String>> {
            (0..300).step_by(37).map(|number| world.keys(&query(collection, &vector(number), 5))).collect()
        };
        let before = answers(&world, "codes");
        let own = (0..300).step_by(37).map(|number| format!("doc:{number}"));
        assert!(before.iter().zip(own).all(|(keys, own)| keys[0] == own), "{quantization:?}: {before:?}");
        assert_eq!(answers(&world, "docs"), before, "{quantization:?}");
        world.reopen();
        assert!(world.engine().warnings().is_empty(), "{:?}", world.engine().warnings());
        assert_eq!(answers(&world, "codes"), before, "{quantization:?}");
        let document = world.engine().get(b"doc:7").unwrap().unwrap();
        let given = blob(&vector(7));
        assert!(document.fields.iter().any(|field| *field.name == *b"v" && *field.value == *given));
    }
}

#[test]
fn a_store_that_has_gone_is_not_replaced_by_an_empty_one() {
    let mut world = World::new();
    world.engine().create_collection("docs", schema("doc:", hnsw(), Metric::L2)).unwrap();
    world.put("doc:1", &[("v", &blob(&vector(1)))]);
    world.close();
    let store = world.options.data_dir.join("nearfield.redb");
    let bytes = std::fs::read(&store).unwrap();
    std::fs::write(&store, b"").unwrap();
    let refused = |world: &World| Engine::open(world.options.clone()).unwrap_err().to_string();
    assert!(refused(&world).contains("restore it from a backup"), "{}", refused(&world));
    std::fs::remove_file(&store).unwrap();
    assert!(refused(&world).contains(store.to_str().unwrap()), "{}", refused(&world));
    std::fs::write(&store, bytes).unwrap();
    world.open();
    assert_eq!(world.engine().count("docs", None).unwrap(), 1);
}
