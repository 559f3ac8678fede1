//! Text from prompts, models and files, made harmless for where it is put.

/// For HTML text and for attributes in double quotes. Control characters other than line feed and tab have no
/// meaning in HTML and become U+FFFD.
pub(super) fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(character),
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A name for HTML text, which may be broken behind an underscore.
pub(super) fn name(text: &str) -> String {
    html(text).replace('_', "_<wbr>")
}

/// For a cell of a Markdown table or a line of text: no markup, no HTML, no line break.
pub(super) fn markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in one_line(text).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '|' | '[' | ']' | '#' | '~' | '!' => {
                escaped.push('\\');
                escaped.push(character);
            }
            other => escaped.push(other),
        }
    }
    escaped
}

/// A field of a CSV file (RFC 4180): in quotes when it needs them.
pub(super) fn csv(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// For a terminal: control characters, which could move the cursor or change colours, become spaces.
pub(super) fn one_line(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_leaves_no_markup() {
        assert_eq!(
            html("<b onclick=\"x('1')\"> & é\u{1b}[31m\0\n"),
            "&lt;b onclick=&quot;x(&#39;1&#39;)&quot;&gt; &amp; é\u{fffd}[31m\u{fffd}\n"
        );
    }

    #[test]
    fn markdown_leaves_no_markup() {
        assert_eq!(
            markdown("a|b *c* <img>\n# d"),
            "a\\|b \\*c\\* &lt;img&gt; \\# d"
        );
    }

    #[test]
    fn csv_quotes_only_where_needed() {
        assert_eq!(csv("plain text"), "plain text");
        assert_eq!(csv("a,b"), "\"a,b\"");
        assert_eq!(csv("say \"hi\""), "\"say \"\"hi\"\"\"");
        assert_eq!(csv("two\nlines"), "\"two\nlines\"");
    }

    #[test]
    fn a_terminal_gets_no_control_characters() {
        assert_eq!(one_line("a\u{1b}[31m\r\nb"), "a [31m  b");
    }
}
