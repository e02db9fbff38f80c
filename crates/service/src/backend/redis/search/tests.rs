//! Against replies of a real server (Redis 7.4.1, RediSearch 2.10.5), one line of protocol a line.

use engine::{Leg, Order};

use super::*;
use crate::article_schema;

fn schema() -> Schema {
    article_schema("article:", &["tags".to_owned()], &["year".to_owned()])
}

fn leg(vector: &[f32]) -> VectorLeg<'_> {
    VectorLeg { field: Some("embedding"), vector, ef_search: None, exact: false }
}

fn query(leg: VectorLeg<'_>) -> Query<'_> {
    Query {
        collection: "kb",
        legs: vec![Leg::Vector(leg)],
        order: Order::Score,
        page: Page::first(3),
        filter: None,
        min_score: None,
        fields: None,
    }
}

fn asked(query: &Query<'_>) -> String {
    let asking = build_search(query, "kb", &schema(), Duration::from_millis(1500), false).unwrap().unwrap();
    let words = asking.command.args_iter().map(|argument| match argument {
        redis::Arg::Simple(bytes) if bytes.len() == 4 * query.vector_leg().unwrap().vector.len() => {
            "BLOB".to_owned()
        }
        redis::Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => panic!("no cursors here"),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_search_names_its_window_its_fields_and_its_time() {
    let vector = vec![0.5; 384];
    assert_eq!(
        asked(&query(leg(&vector))),
        "FT.SEARCH kb *=>[KNN 3 @embedding $v EF_RUNTIME 80 AS __score] PARAMS 2 v BLOB SORTBY __score ASC \
         LIMIT 0 3 RETURN 5 __score title content tags year TIMEOUT 1500 DIALECT 2"
    );
    let filter = Filter::parse("@tags:{a b} @year:[2000 (2010]", &schema()).unwrap();
    let fields = ["title".to_owned()];
    let query = Query {
        filter: Some(&filter),
        page: Page { offset: 100, k: 50 },
        fields: Some(&fields),
        ..query(VectorLeg { ef_search: Some(20), ..leg(&vector) })
    };
    assert_eq!(
        asked(&query),
        "FT.SEARCH kb (@tags:{a\\ b} @year:[2000 (2010])=>[KNN 150 @embedding $v EF_RUNTIME 150 AS __score] \
         PARAMS 2 v BLOB SORTBY __score ASC LIMIT 100 50 RETURN 2 __score title TIMEOUT 1500 DIALECT 2"
    );
}

#[test]
fn an_exact_search_compares_with_everything_a_filter_matches() {
    let vector = vec![0.5; 384];
    let exact = query(VectorLeg { exact: true, ..leg(&vector) });
    assert!(
        asked(&exact).contains(" (-@__nobody:{x})=>[KNN 3 @embedding $v HYBRID_POLICY ADHOC_BF AS __score] ")
    );
    let filter = Filter::parse("@tags:{a}", &schema()).unwrap();
    let exact = Query { filter: Some(&filter), ..exact };
    assert!(asked(&exact).contains(" (@tags:{a})=>[KNN 3 @embedding $v HYBRID_POLICY ADHOC_BF AS __score] "));
}

#[test]
fn a_filter_that_lets_nothing_through_asks_nothing() {
    let vector = vec![0.5; 384];
    let nothing = Filter::Not(Box::new(Filter::All));
    let query = Query { filter: Some(&nothing), ..query(leg(&vector)) };
    assert!(build_search(&query, "kb", &schema(), Duration::from_secs(1), false).unwrap().is_none());
    assert!(build_count("kb", Some(&nothing), Duration::from_secs(1)).is_none());
}

#[test]
fn a_field_the_schema_lacks_is_named() {
    let vector = vec![0.5; 384];
    let fields = ["titel".to_owned()];
    let query = Query { fields: Some(&fields), ..query(leg(&vector)) };
    let error = build_search(&query, "kb", &schema(), Duration::from_secs(1), false).err().unwrap();
    assert_eq!((error.code, error.at.as_deref()), ("field-not-found", Some("titel")));
}

fn asking(min_score: Option<f32>) -> SearchCommand {
    SearchCommand { command: Cmd::new(), score_name: "__score".to_owned(), metric: Metric::Cosine, min_score }
}

fn replies() -> [Value; 2] {
    [include_str!("../recorded/search_resp2.txt"), include_str!("../recorded/search_resp3.txt")].map(
        |recorded| {
            let named = recorded.replace("$17\n__embedding_score", "$7\n__score");
            reply::recorded(&named.replace('\n', "\r\n"))
        },
    )
}

#[test]
fn hits_read_alike_by_both_protocols() {
    let [two, three] = replies().map(|reply| asking(None).parse(reply).unwrap());
    assert_eq!((&two.hits, two.vanished), (&three.hits, 0));
    let keys: Vec<&[u8]> = two.hits.iter().map(|hit| &*hit.document.key).collect();
    assert_eq!(keys, [&b"article:1"[..], b"article:4", b"article:2"]);
    let first = &two.hits[0];
    assert!((first.distance.unwrap() - 0.001_247_6).abs() < 1e-6 && (first.score - 0.998_752_4).abs() < 1e-6);
    assert_eq!(first.document.field(b"title"), Some(&b"Reset your password"[..]));
    assert_eq!(first.document.fields.len(), 2);
}

#[test]
fn hits_below_the_least_score_are_cut() {
    for reply in replies() {
        assert_eq!(asking(Some(0.9985)).parse(reply).unwrap().hits.len(), 2);
    }
}

#[test]
fn documents_that_have_gone_are_counted_and_left_out() {
    let two = "*5\r\n:2\r\n$1\r\na\r\n*-1\r\n$1\r\nb\r\n*2\r\n$7\r\n__score\r\n$1\r\n0\r\n";
    let three = "%2\r\n+total_results\r\n:2\r\n+results\r\n*2\r\n%1\r\n+id\r\n$1\r\na\r\n\
                 %2\r\n+id\r\n$1\r\nb\r\n+extra_attributes\r\n%1\r\n$7\r\n__score\r\n$1\r\n0\r\n";
    for wire in [two, three] {
        let answered = asking(None).parse(reply::recorded(wire)).unwrap();
        assert_eq!((answered.hits.len(), answered.vanished), (1, 1), "{wire:?}");
    }
}

#[test]
fn a_distance_that_is_no_number_is_no_hit() {
    let wire = "*3\r\n:1\r\n$1\r\na\r\n*2\r\n$7\r\n__score\r\n$4\r\n-nan\r\n";
    assert!(asking(None).parse(reply::recorded(wire)).unwrap().hits.is_empty());
}

#[test]
fn hits_that_are_not_all_there_are_are_refused() {
    let wire = "%2\r\n+results\r\n*0\r\n+warning\r\n*1\r\n+Timeout limit was reached\r\n";
    let error = asking(None).parse(reply::recorded(wire)).err().unwrap();
    assert_eq!(error.code, "deadline");
    let wire = "%2\r\n+total_results\r\n:5\r\n+warning\r\n*1\r\n+Timeout limit was reached\r\n";
    assert_eq!(parse_count(reply::recorded(wire)).unwrap_err().code, "deadline");
}

#[test]
fn a_missing_index_and_other_refusals_are_told_apart() {
    let read = |wire| asking(None).parse(reply::recorded(wire)).err().unwrap().code;
    assert_eq!(read("-kb: no such index\r\n"), "index-missing");
    assert_eq!(read("-LOADING Redis is loading the dataset in memory\r\n"), "redis-unavailable");
    assert_eq!(read("-NOPERM User x has no permissions\r\n"), "redis-refused");
    assert_eq!(read("-Syntax error at offset 1\r\n"), "redis");
    assert_eq!(read(":1\r\n"), "redis-reply");
}

#[test]
fn counts_are_read_by_both_protocols() {
    assert_eq!(parse_count(reply::recorded("*1\r\n:42\r\n")).unwrap(), 42);
    let three = "%2\r\n+total_results\r\n:42\r\n+warning\r\n*0\r\n";
    assert_eq!(parse_count(reply::recorded(three)).unwrap(), 42);
}
