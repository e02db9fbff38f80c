//! The OpenAPI document: the parts that do not derive from the routing table.

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
        description = "Semantic search: finds the documents whose meaning is closest to a text. \
                       Failures are problem details (RFC 9457).",
        license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT"),
    ),
    components(schemas(Problem)),
    security(("bearer" = []), ("key" = [])),
    tags(
        (name = "search", description = "Searching documents"),
        (name = "documents", description = "Writing and reading documents"),
        (name = "collections", description = "Collections and aliases"),
        (name = "operation", description = "Operation and monitoring"),
        (name = "page", description = "The web page"),
    )
)]
struct BaseDocument;

/// The document without paths.
pub(super) fn base_document() -> utoipa::openapi::OpenApi {
    BaseDocument::openapi()
}

/// The complete document as JSON.
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
    Bytes::from(serde_json::to_vec(&api).expect("the document has string keys"))
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete].into_iter().flatten()
}

/// Adds the failure response, which is the same for every operation.
fn add_failure(operation: &mut Operation) {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let failure = ResponseBuilder::new()
        .description("The problem")
        .content("application/problem+json", content)
        .build();
    operation.responses.responses.insert("default".to_owned(), RefOr::T(failure));
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use service::limits;

    use super::*;
    use crate::http::routes;

    #[test]
    fn limits_and_defaults_are_those_of_the_service() {
        let document = document(routes::table().router.into_openapi());
        let api: Value = serde_json::from_slice(&document).unwrap();
        for path in ["/search", "/kb/search"] {
            let parameters = api["paths"][path]["get"]["parameters"].as_array().unwrap();
            let parameter = |name: &str| {
                parameters.iter().find(|parameter| parameter["name"] == name).expect("the parameter exists")
            };
            assert_eq!(parameter("q")["required"], true);
            assert_eq!(parameter("k")["required"], false);
            assert_eq!(parameter("k")["schema"]["default"], limits::ARTICLE_K_DEFAULT);
            assert_eq!(parameter("k")["schema"]["maximum"], limits::K_MAX);
            assert_eq!(parameter("X-Timeout-Ms")["in"], "header");
        }
        let schemas = &api["components"]["schemas"];
        let search = &schemas["SearchRequestBody"];
        assert_eq!(search["required"], Value::Null, "every member is optional");
        assert_eq!(search["properties"]["k"]["default"], limits::K_DEFAULT);
        assert_eq!(search["properties"]["fields"]["maxItems"], limits::FIELDS_MAX);
        assert_eq!(schemas["FieldBody"]["required"], serde_json::json!(["name", "kind"]));
        assert_eq!(schemas["FieldBody"]["properties"]["m"]["default"], limits::M_DEFAULT);
    }
}
