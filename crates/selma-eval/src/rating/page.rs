//! The page that raters open.

use selma_durable::script_json;
use serde::Serialize;

use super::picture::Picture;

/// Everything but the study itself. It has no library, no link and no request in it, and forbids all by its policy.
const TEMPLATE: &str = include_str!("page.html");
/// Where the study stands in the template, inside of a `<script type="application/json">`.
const PLACE: &str = "{{STUDY}}";

/// Two pictures as raters see them.
#[derive(Debug, Serialize)]
pub(super) struct PagePair<'a> {
    /// What the pictures were drawn for.
    pub(super) text: &'a str,
    /// The picture on the left, by its number.
    pub(super) left: usize,
    /// The picture on the right.
    pub(super) right: usize,
}

/// What the script reads.
#[derive(Serialize)]
struct Data<'a> {
    study: &'a str,
    title: &'a str,
    pictures: Vec<&'a Picture>,
    pairs: Vec<PagePair<'a>>,
}

/// The page of a study. Its texts are data, which the script sets as text and never as HTML.
pub(super) fn render(
    study: &str,
    title: &str,
    pictures: &[Picture],
    pairs: &[PagePair<'_>],
) -> String {
    // In the order of their appearance: that in which they were drawn would tell one model from the other.
    let mut order: Vec<usize> = Vec::with_capacity(pictures.len());
    let mut numbers = vec![None; pictures.len()];
    let mut number = |picture: usize| match numbers.get_mut(picture) {
        Some(Some(number)) => *number,
        Some(slot) => {
            *slot = Some(order.len());
            order.push(picture);
            order.len() - 1
        }
        None => picture,
    };
    let pairs = pairs
        .iter()
        .map(|pair| PagePair {
            text: pair.text,
            left: number(pair.left),
            right: number(pair.right),
        })
        .collect();
    let data = Data {
        study,
        title,
        pictures: order
            .iter()
            .filter_map(|&index| pictures.get(index))
            .collect(),
        pairs,
    };
    TEMPLATE.replacen(PLACE, &script_json(&data), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(page: &str) -> serde_json::Value {
        let (_, rest) = page
            .split_once(r#"<script type="application/json" id="study">"#)
            .unwrap();
        let (json, _) = rest.split_once("</script>").unwrap();
        serde_json::from_str(json).unwrap()
    }

    fn picture(name: &str) -> Picture {
        Picture {
            uri: format!("data:image/png;base64,{name}"),
            width: 1,
            height: 1,
            small: true,
        }
    }

    #[test]
    fn texts_cannot_leave_their_place() {
        let text = "</script><script>alert(1)</script><!-- & \u{2028} \" ' {{STUDY}}";
        let title = "<img src=x onerror=alert(2)>";
        let pairs = [PagePair {
            text,
            left: 0,
            right: 1,
        }];
        let page = render("id", title, &[picture("a"), picture("b")], &pairs);
        assert!(!page.contains("alert(1)</script>") && !page.contains("<img src=x"));
        let data = data(&page);
        assert_eq!(data["pairs"][0]["text"], text);
        assert_eq!(data["title"], title);
        // The script itself must not make HTML of texts.
        for sink in [
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
        ] {
            assert!(!TEMPLATE.contains(sink), "{sink}");
        }
    }

    #[test]
    fn the_page_asks_nothing_of_a_network() {
        assert_eq!(TEMPLATE.matches(PLACE).count(), 1);
        for request in [
            "http:",
            "https:",
            "//cdn",
            "src=\"",
            "@import",
            "url(",
            "fetch(",
            "XMLHttp",
            "WebSocket",
            "sendBeacon",
            "import(",
        ] {
            assert!(!TEMPLATE.contains(request), "{request}");
        }
        assert!(TEMPLATE.contains("default-src 'none'"));
    }

    #[test]
    fn pictures_stand_in_the_order_of_their_appearance() {
        let pictures = [picture("a"), picture("b"), picture("c")];
        let pair = |left, right| PagePair {
            text: "",
            left,
            right,
        };
        let page = render("id", "", &pictures, &[pair(2, 0), pair(1, 2)]);
        let data = data(&page);
        let uris: Vec<&str> = data["pictures"]
            .as_array()
            .unwrap()
            .iter()
            .map(|picture| picture["uri"].as_str().unwrap())
            .collect();
        let ends: Vec<&str> = uris.iter().map(|uri| &uri[uri.len() - 1..]).collect();
        assert_eq!(ends, ["c", "a", "b"]);
        assert_eq!(data["pairs"][1]["left"], 2);
        assert_eq!(data["pairs"][1]["right"], 0);
    }
}
