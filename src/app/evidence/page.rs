//! The page of a bundle: one HTML file that opens without a server and asks no network for anything. What it shows lies in it as
//! JSON that cannot run; the one script that can is allowed by its hash.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

const SCRIPT: &str = include_str!("page.js");
const STYLE: &str = include_str!("page.css");

/// The page that shows `data`.
pub(super) fn render(data: &Value) -> String {
    let hash = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        hash(SCRIPT),
        hash(STYLE)
    );
    // Within a script element nothing but `<` can end it or begin anything; in JSON it has another spelling.
    let data = data.to_string().replace('<', "\\u003c");
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n<title>Evidence</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<main id=\"page\"><noscript>The page needs JavaScript; casts, transcripts and events lie beside it in the \
         archive.</noscript></main>\n<script type=\"application/json\" id=\"data\">{data}</script>\n\
         <script>{SCRIPT}</script>\n</body>\n</html>\n"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_target_printed_does_not_leave_its_data_block() {
        let hostile = "</script><script>alert(1)</script><!--<script>";
        let page = render(&json!({ "text": hostile }));
        assert!(!page.contains("alert(1)</script>"), "{page}");
        assert_eq!(page.matches("<script").count(), 2);
        assert_eq!(page.matches("</script>").count(), 2);
        let data = page.split("id=\"data\">").nth(1).and_then(|rest| rest.split("</script>").next()).unwrap();
        assert_eq!(serde_json::from_str::<Value>(data).unwrap()["text"], hostile);
    }

    #[test]
    fn nothing_in_the_page_leads_to_a_network() {
        for text in [SCRIPT, STYLE] {
            for way in
                ["http:", "https:", "//cdn", "fetch(", "XMLHttp", "import(", "@import", "url(", "innerHTML", "eval("]
            {
                assert!(!text.contains(way), "{way}");
            }
            assert!(!text.contains("</"), "it would end its element");
        }
    }
}
