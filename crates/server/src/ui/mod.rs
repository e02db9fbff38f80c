//! The web page at `/`: files compiled into the binary. The page makes no requests to other hosts.

/// A file of the page.
#[derive(Clone, Copy, Debug)]
pub struct Asset {
    /// Value of its Content-Type header.
    pub content_type: &'static str,
    /// Its bytes.
    pub bytes: &'static [u8],
}

/// The file of the page served at `path`.
pub fn asset(path: &str) -> Option<Asset> {
    let (content_type, text) = match path {
        "/" => ("text/html; charset=utf-8", include_str!("index.html")),
        "/app.js" => ("text/javascript; charset=utf-8", include_str!("app.js")),
        "/style.css" => ("text/css; charset=utf-8", include_str!("style.css")),
        "/favicon.svg" => ("image/svg+xml", include_str!("favicon.svg")),
        _ => return None,
    };
    Some(Asset { content_type, bytes: text.as_bytes() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str) -> &'static str {
        std::str::from_utf8(asset(path).expect(path).bytes).expect(path)
    }

    #[test]
    fn the_page_loads_only_files_that_are_compiled_in() {
        for reference in text("/").split(['"', '\'']).filter(|part| part.starts_with('/') && part.len() > 1) {
            assert!(asset(reference).is_some(), "{reference} is referred to but not served");
        }
        for path in ["/", "/app.js", "/style.css"] {
            assert!(!text(path).contains("://"), "{path} names another host");
        }
    }

    #[test]
    fn the_page_complies_with_its_content_security_policy() {
        assert!(!text("/").contains("<style") && !text("/").contains(" style="), "inline style");
        assert!(!text("/").contains("<script>") && !text("/").contains(" onclick="), "inline script");
        for unsafe_sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!text("/app.js").contains(unsafe_sink), "{unsafe_sink} interprets text as markup");
        }
    }
}
