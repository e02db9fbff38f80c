//! Tests against recorded replies of a real server (Redis 7.4.1, RediSearch 2.10.5), one protocol line
//! per line of the file.

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

fn command_text(query: &Query<'_>) -> String {
    let command = build_search(query, "kb", &schema(), Duration::from_millis(1500), false).unwrap().unwrap();
    let words = command.command.args_iter().map(|argument| match argument {
        redis::Arg::Simple(bytes) if bytes.len() == 4 * query.vector_leg().unwrap().vector.len() => {
            "BLOB".to_owned()
        }
        redis::Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => panic!("no cursors here"),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn builds_a_search_with_page_fields_and_timeout() {
    let vector = vec![0.5; 384];
    assert_eq!(
        command_text(&query(leg(&vector))),
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
        command_text(&query),
        "FT.SEARCH kb (@tags:{a\\ b} @year:[2000 (2010])=>[KNN 150 @embedding $v EF_RUNTIME 150 AS __score] \
         PARAMS 2 v BLOB SORTBY __score ASC LIMIT 100 50 RETURN 2 __score title TIMEOUT 1500 DIALECT 2"
    );
}

#[test]
fn an_exact_search_uses_brute_force_over_the_filter() {
    let vector = vec![0.5; 384];
    let exact = query(VectorLeg { exact: true, ..leg(&vector) });
    assert!(
        command_text(&exact)
            .contains(" (-@__none:{x})=>[KNN 3 @embedding $v HYBRID_POLICY ADHOC_BF AS __score] ")
    );
    let filter = Filter::parse("@tags:{a}", &schema()).unwrap();
    let exact = Query { filter: Some(&filter), ..exact };
    assert!(
        command_text(&exact)
            .contains(" (@tags:{a})=>[KNN 3 @embedding $v HYBRID_POLICY ADHOC_BF AS __score] ")
    );
}

#[test]
fn a_filter_that_matches_nothing_sends_no_command() {
    let vector = vec![0.5; 384];
    let nothing = Filter::Not(Box::new(Filter::All));
    let query = Query { filter: Some(&nothing), ..query(leg(&vector)) };
    assert!(build_search(&query, "kb", &schema(), Duration::from_secs(1), false).unwrap().is_none());
    assert!(build_count("kb", Some(&nothing), Duration::from_secs(1)).is_none());
}

#[test]
fn names_an_unknown_field_in_the_error() {
    let vector = vec![0.5; 384];
    let fields = ["titel".to_owned()];
    let query = Query { fields: Some(&fields), ..query(leg(&vector)) };
    let error = build_search(&query, "kb", &schema(), Duration::from_secs(1), false).err().unwrap();
    assert_eq!((error.code, error.at.as_deref()), ("field-not-found", Some("titel")));
}

fn command(min_score: Option<f32>) -> SearchCommand {
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
fn parses_hits_from_resp2_and_resp3_alike() {
    let [two, three] = replies().map(|reply| command(None).parse(reply).unwrap());
    assert_eq!((&two.hits, two.vanished), (&three.hits, 0));
    let keys: Vec<&[u8]> = two.hits.iter().map(|hit| &*hit.document.key).collect();
    assert_eq!(keys, [&b"article:1"[..], b"article:4", b"article:2"]);
    let first = &two.hits[0];
    assert!((first.distance.unwrap() - 0.001_247_6).abs() < 1e-6 && (first.score - 0.998_752_4).abs() < 1e-6);
    assert_eq!(first.document.field(b"title"), Some(&b"Reset your password"[..]));
    assert_eq!(first.document.fields.len(), 2);
}

#[test]
fn drops_hits_below_the_minimum_score() {
    for reply in replies() {
        assert_eq!(command(Some(0.9985)).parse(reply).unwrap().hits.len(), 2);
    }
}

#[test]
fn counts_and_omits_documents_that_disappeared() {
    let two = "*5\r\n:2\r\n$1\r\na\r\n*-1\r\n$1\r\nb\r\n*2\r\n$7\r\n__score\r\n$1\r\n0\r\n";
    let three = "%2\r\n+total_results\r\n:2\r\n+results\r\n*2\r\n%1\r\n+id\r\n$1\r\na\r\n\
                 %2\r\n+id\r\n$1\r\nb\r\n+extra_attributes\r\n%1\r\n$7\r\n__score\r\n$1\r\n0\r\n";
    for wire in [two, three] {
        let found = command(None).parse(reply::recorded(wire)).unwrap();
        assert_eq!((found.hits.len(), found.vanished), (1, 1), "{wire:?}");
    }
}

#[test]
fn ignores_a_hit_whose_distance_is_not_a_number() {
    let wire = "*3\r\n:1\r\n$1\r\na\r\n*2\r\n$7\r\n__score\r\n$4\r\n-nan\r\n";
    assert!(command(None).parse(reply::recorded(wire)).unwrap().hits.is_empty());
}

#[test]
fn rejects_incomplete_hits() {
    let wire = "%2\r\n+results\r\n*0\r\n+warning\r\n*1\r\n+Timeout limit was reached\r\n";
    let error = command(None).parse(reply::recorded(wire)).err().unwrap();
    assert_eq!(error.code, "deadline");
    let wire = "%2\r\n+total_results\r\n:5\r\n+warning\r\n*1\r\n+Timeout limit was reached\r\n";
    assert_eq!(parse_count(reply::recorded(wire)).unwrap_err().code, "deadline");
}

#[test]
fn distinguishes_a_missing_index_from_other_errors() {
    let read = |wire| command(None).parse(reply::recorded(wire)).err().unwrap().code;
    assert_eq!(read("-kb: no such index\r\n"), "index-missing");
    assert_eq!(read("-LOADING Redis is loading the dataset in memory\r\n"), "redis-unavailable");
    assert_eq!(read("-NOPERM User x has no permissions\r\n"), "redis-refused");
    assert_eq!(read("-Syntax error at offset 1\r\n"), "redis");
    assert_eq!(read(":1\r\n"), "redis-reply");
}

#[test]
fn parses_counts_from_resp2_and_resp3() {
    assert_eq!(parse_count(reply::recorded("*1\r\n:42\r\n")).unwrap(), 42);
    let three = "%2\r\n+total_results\r\n:42\r\n+warning\r\n*0\r\n";
    assert_eq!(parse_count(reply::recorded(three)).unwrap(), 42);
}
