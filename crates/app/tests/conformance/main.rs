//! What every store promises: one suite, run on the data directory, on a real Redis Stack and on a real
//! Redis Cluster. Each
//! case asks through the HTTP routes, as clients do, and compares with an oracle of its own (a map,
//! exact search, a filter evaluated by hand), so that what holds for one store holds for all.

#[path = "../redis_cluster/mod.rs"]
mod redis_cluster;
#[path = "../redis_stack/mod.rs"]
mod redis_stack;
#[path = "../tiny_model/mod.rs"]
mod tiny_model;

mod batches;
mod characters;
mod documents;
mod embedding;
mod expiry;
mod filters;
mod foreign;
mod house;
mod nearest;
mod random;
mod schemas;
mod scrolls;
mod vectors;

/// Each case as a test of one store.
macro_rules! on {
    ($store:ident, $kind:ident: $($module:ident: $($case:ident)*;)*) => {
        mod $store {
            $($(#[test]
            fn $case() {
                crate::house::run(crate::house::Kind::$kind, crate::$module::$case);
            })*)*
        }
    };
}

macro_rules! on_every_store {
    ($($cases:tt)*) => {
        on!(directory, Directory: $($cases)*);
        on!(redis, Redis: $($cases)*);
        on!(redis_resp2, RedisResp2: $($cases)*);
        on!(cluster, Cluster: $($cases)*);
    };
}

on_every_store! {
    batches:
        a_bad_document_does_not_spoil_the_batch
        what_is_acknowledged_is_found_at_once
        writers_at_once_lose_nothing
        patches_at_once_of_one_document_all_count;
    characters:
        ids_of_any_characters_lead_back_to_their_documents
        tags_of_any_characters_are_filtered_by
        texts_and_unknown_fields_come_back_byte_for_byte
        names_of_fields_may_be_anything;
    documents:
        a_document_is_put_read_changed_and_deleted
        a_put_replaces_the_whole_document
        the_same_document_again_is_unchanged
        guards_are_kept
        what_is_not_there_is_told;
    embedding:
        texts_are_embedded_and_found_by_meaning
        a_changed_text_has_a_new_vector
        a_vector_of_ones_own_stands_in_place_of_the_computed;
    expiry:
        a_document_ends_with_its_life
        a_life_is_changed_by_a_patch_and_kept_without
        the_collections_life_is_the_default;
    filters:
        random_filters_let_through_what_they_say
        every_selectivity_finds_the_nearest_that_match
        case_matters_where_the_schema_says_so
        bad_filters_are_refused;
    nearest:
        flat_finds_what_exact_arithmetic_finds
        hnsw_finds_nearly_all_and_exactly_all_if_asked
        many_documents_are_found_as_exact_search_finds_them
        other_element_types_come_back_as_given
        ties_are_all_found_and_pages_share_none
        pages_make_up_the_whole
        a_least_score_cuts_the_list
        only_the_fields_asked_for_come_back
        searches_of_one_request_are_answered_in_order
        what_makes_no_sense_is_refused;
    schemas:
        an_equal_schema_is_found_and_another_refused
        a_dropped_collection_leaves_its_documents_or_takes_them_along
        aliases_lead_to_collections
        names_are_checked_and_unknown_ones_told
        several_prefixes_and_collections_over_one_prefix
        bad_schemas_are_refused;
    scrolls:
        every_document_is_seen_once
        a_scroll_takes_a_filter_and_a_limit
        matching_documents_are_counted_and_deleted;
    vectors:
        bad_vectors_are_refused_before_anything_is_written
        good_vectors_at_the_edge_are_taken
        bad_numbers_and_tags_are_refused;
}

on! { redis_with_others, Redis:
    foreign:
        an_index_made_by_others_is_adopted
        hashes_written_by_others_are_documents
        what_is_written_is_what_others_would_write
        hashes_that_do_not_fit_are_told_and_spoil_nothing
        keys_of_other_types_are_left_alone
        hashes_without_a_vector_get_theirs
        what_a_redis_cannot_hold_is_refused_with_the_reason
        what_docs_say_a_redis_does_otherwise_it_does
        a_full_redis_refuses_writes_and_reads_on
        a_redis_that_may_drop_documents_is_warned_of
        no_collection_takes_in_what_is_kept_about_collections;
}
