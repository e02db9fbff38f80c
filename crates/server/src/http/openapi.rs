//! The description of the door: what does not come from the table of routes.

use axum::body::Bytes;
use utoipa::{
    OpenApi,
    openapi::{
        ContentBuilder, Ref, RefOr, ResponseBuilder,
        path::{Operation, PathItem},
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::Problem;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Nearfield",
        description = "Real-time semantic search: text in, the most relevant documents out. \
                       Failures are problem details (RFC 9457).",
        license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT"),
    ),
    components(schemas(Problem)),
    security(("bearer" = []), ("key" = [])),
    tags(
        (name = "search", description = "Finding documents"),
        (name = "documents", description = "Writing and reading documents"),
        (name = "collections", description = "Schemas over documents"),
        (name = "operation", description = "Running it"),
        (name = "page", description = "The page"),
    )
)]
struct Frame;

/// The document without its paths.
pub(super) fn frame() -> utoipa::openapi::OpenApi {
    Frame::openapi()
}

/// The finished document as JSON.
pub(super) fn document(mut api: utoipa::openapi::OpenApi) -> Bytes {
    let components = api.components.get_or_insert_default();
    components.add_security_scheme(
        "bearer",
        SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()),
    );
    components
        .add_security_scheme("key", SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key"))));
    for item in api.paths.paths.values_mut() {
        operations(item).for_each(add_failure);
    }
    Bytes::from(serde_json::to_vec(&api).expect("the document is plain data"))
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete].into_iter().flatten()
}

/// Every route can fail, and each does so in the same shape.
fn add_failure(operation: &mut Operation) {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let failure = ResponseBuilder::new()
        .description("Why it failed")
        .content("application/problem+json", content)
        .build();
    operation.responses.responses.insert("default".to_owned(), RefOr::T(failure));
}
