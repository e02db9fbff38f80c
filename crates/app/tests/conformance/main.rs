//! The behaviour common to all stores: one suite that runs on the data directory, on a real Redis Stack and on a real
//! Redis Cluster. Each case sends requests to the HTTP routes, as clients do, and compares the responses with an
//! independent oracle (a map, exact search, a separate evaluation of the filter).

mod batches;
mod characters;
mod documents;
mod embedding;
mod expiry;
mod filters;
mod keyspace;
mod nearest;
mod other_clients;
mod random;
mod schemas;
mod scrolls;
mod test_store;
mod vectors;

/// Turns each case into a test of one store.
macro_rules! on {
    ($store:ident, $kind:ident: $($module:ident: $($case:ident)*;)*) => {
        mod $store {
            $($(#[test]
            fn $case() {
                crate::test_store::run(crate::test_store::StoreKind::$kind, crate::$module::$case);
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
        rejects_only_the_invalid_documents_of_a_batch
        finds_acknowledged_writes_immediately
        concurrent_writers_lose_no_documents
        applies_all_concurrent_patches_of_one_document;
    characters:
        gets_documents_by_ids_with_special_characters
        filters_by_tags_with_special_characters
        returns_texts_and_unknown_fields_byte_for_byte
        accepts_field_names_with_special_characters;
    documents:
        puts_gets_patches_and_deletes_a_document
        put_replaces_the_whole_document
        writing_an_equal_document_changes_nothing
        checks_the_preconditions_of_writes
        reports_missing_collections_and_documents;
    embedding:
        finds_embedded_texts_by_meaning
        embeds_a_changed_text_again
        a_given_vector_replaces_the_computed_one;
    expiry:
        a_document_expires_after_its_time_to_live
        only_a_patch_with_a_time_to_live_changes_it
        the_collection_defines_the_default_time_to_live;
    filters:
        random_filters_match_the_expected_documents
        finds_the_nearest_matches_at_every_selectivity
        tags_are_case_sensitive_only_if_the_schema_says_so
        rejects_invalid_filters;
    keyspace:
        sets_fields_and_creates_a_missing_document
        concurrent_sets_of_different_fields_are_all_kept
        expires_and_deletes_documents_by_key
        a_scan_returns_every_key_with_a_prefix;
    nearest:
        flat_search_is_exact
        hnsw_search_has_high_recall_and_is_exact_on_request
        hnsw_search_of_many_documents_agrees_with_exact_search
        returns_vectors_of_every_element_type_unchanged
        finds_all_ties_and_repeats_none_on_the_next_page
        pages_together_contain_all_results
        applies_the_minimum_score
        returns_only_the_requested_fields
        returns_the_results_of_several_searches_in_order
        rejects_invalid_searches;
    schemas:
        accepts_an_equal_schema_and_rejects_a_different_one
        dropping_a_collection_keeps_or_deletes_its_documents
        aliases_refer_to_collections
        rejects_invalid_names_and_reports_unknown_ones
        collections_can_share_prefixes_and_have_several
        only_explicit_prefixes_may_overlap
        an_id_names_one_document_where_prefixes_are_nested
        rejects_invalid_schemas;
    scrolls:
        a_scroll_returns_every_document_once
        a_scroll_accepts_a_filter_and_a_limit
        counts_and_deletes_matching_documents;
    vectors:
        rejects_invalid_vectors_before_writing_anything
        accepts_extreme_valid_vectors
        rejects_invalid_numbers_and_tags;
}

on! { shared_redis, Redis:
    other_clients:
        adopts_an_index_created_by_another_client
        hashes_written_by_other_clients_are_documents
        writes_hashes_in_the_format_of_other_clients
        reports_and_ignores_hashes_that_violate_the_schema
        does_not_change_keys_of_other_types
        embeds_hashes_without_a_vector
        rejects_what_redis_does_not_support_with_the_reason
        redis_differs_from_the_directory_as_documented
        a_full_redis_rejects_writes_and_serves_reads
        warns_if_redis_may_evict_documents
        collections_never_contain_the_metadata_of_collections;
}
