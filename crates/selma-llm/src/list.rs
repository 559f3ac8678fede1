//! Reading the numbered list that an LLM was asked for, however it is dressed: [`parse_numbered_list`].

use crate::ParsedList;

/// Longest number of a list item, in digits; longer ones are years or prices.
const MAX_DIGITS: usize = 4;

/// An item being read.
struct Item {
    text: String,
    indent: usize,
}

/// Reads an LLM's answer as a numbered list whose first item should have the number `first`.
///
/// Understood are `4. text`, `4) text`, `(4) text`, `[4] text`, `4: text`, `4 - text`, `**4.** text`, `- 4. text`, items
/// that go on in the next line (indented further, beginning in lower case, or after a comma), a number alone with
/// its text below, several items in one line after sentences (`4. A dog. 5. A cat.`), and, if nothing is numbered, plain
/// bullets. Numbers may be wrong; all items count. Code fences and the thoughts of reasoning models
/// (`<think>…</think>`) are left out. SELMA's own parser gives up on the rest of an answer at the first wrong number.
pub fn parse_numbered_list(text: &str, first: usize) -> ParsedList {
    let text = without_thoughts(text.trim_start_matches('\u{feff}'));
    let numbered = collect(text, first, &|line| number_marker(line));
    if !numbered.items.is_empty() || numbered.empty > 0 {
        return numbered;
    }
    // Bullets have no number to be wrong.
    let mut bulleted = collect(text, first, &|line| Some((None, bullet(line)?)));
    if bulleted.items.is_empty() {
        return numbered;
    }
    bulleted.misnumbered = 0;
    bulleted
}

/// Splits a line into an item's number and the rest, `None` if no item begins there.
type Marker<'a> = dyn Fn(&str) -> Option<(Option<usize>, &str)> + 'a;

fn collect(text: &str, first: usize, marker: &Marker<'_>) -> ParsedList {
    let mut list = ParsedList::default();
    let mut open: Option<Item> = None;
    let mut expected = first;
    let mut after_blank = false;
    for line in text.lines() {
        let content = line.trim();
        if content.is_empty() {
            after_blank = true;
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        if let Some((number, mut rest)) = marker(content) {
            list.close(open.take());
            if let Some(number) = number {
                list.misnumbered += usize::from(number != expected);
                expected = number + 1;
            }
            while let Some((item, next)) = split_inline(rest, expected) {
                list.close(Some(Item {
                    text: item.to_owned(),
                    indent,
                }));
                rest = next;
                expected += 1;
            }
            open = Some(Item {
                text: rest.to_owned(),
                indent,
            });
        } else if content.starts_with("```") {
            list.close(open.take());
        } else if let Some(item) = open
            .as_mut()
            .filter(|item| continues(item, content, indent, after_blank))
        {
            if !item.text.is_empty() {
                item.text.push(' ');
            }
            item.text.push_str(content);
        } else {
            list.close(open.take());
            list.skipped += 1;
        }
        after_blank = false;
    }
    list.close(open);
    list
}

impl ParsedList {
    fn close(&mut self, item: Option<Item>) {
        let Some(item) = item else { return };
        let text = undress(&item.text);
        if text.is_empty() {
            self.empty += 1;
        } else {
            self.items.push(text.to_owned());
        }
    }
}

/// Whether a line without a number belongs to the item above it rather than being chatter.
fn continues(item: &Item, content: &str, indent: usize, after_blank: bool) -> bool {
    if undress(&item.text).is_empty() {
        return true;
    }
    !after_blank
        && (indent > item.indent
            || item.text.ends_with([',', ';'])
            || content.starts_with(char::is_lowercase))
}

/// `12. text` and its relatives: the number and the text after it.
pub(crate) fn number_marker(line: &str) -> Option<(Option<usize>, &str)> {
    let line = bullet(line).unwrap_or(line);
    let opened = line.trim_start_matches(['*', '_', '#', ' ', '(', '[']);
    let end = opened
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(opened.len());
    let (digits, rest) = opened.split_at_checked(end)?;
    if digits.is_empty() || digits.len() > MAX_DIGITS {
        return None;
    }
    let number = digits.parse().ok()?;
    let rest = rest.trim_start_matches(['*', '_']);
    let text = if let Some(text) = rest.strip_prefix(['.', ')', ']', ':']) {
        // "3.5 apples" and "4:30 in the morning" begin no item.
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        text.strip_prefix('.').unwrap_or(text)
    } else {
        // A dash must stand apart: "4 - text", not "4-seat car".
        let text = rest.trim_start().strip_prefix(['-', '–', '—'])?;
        if !text.starts_with(char::is_whitespace) {
            return None;
        }
        text
    };
    // Emphasis that was opened before the number may be closed after it.
    let text = if line.starts_with(['*', '_']) {
        close_emphasis(line, text)
    } else {
        text
    };
    Some((Some(number), text.trim()))
}

/// Takes away the emphasis marks that close those in front of the number, be it behind the number or at the end.
fn close_emphasis<'a>(line: &str, text: &'a str) -> &'a str {
    let mark = if line.starts_with('*') { '*' } else { '_' };
    let after = text.trim_start_matches(mark);
    if after.len() < text.len() {
        return after;
    }
    text.trim_end().trim_end_matches(mark)
}

/// The text after a bullet.
fn bullet(line: &str) -> Option<&str> {
    let rest = line.strip_prefix(['-', '*', '•', '–', '·', '+'])?;
    rest.starts_with(char::is_whitespace)
        .then(|| rest.trim_start())
}

/// Splits `text` before ` {number}. ` or ` {number}) ` where that follows the end of a sentence or quotation.
fn split_inline(text: &str, number: usize) -> Option<(&str, &str)> {
    for delimiter in ['.', ')'] {
        let marker = format!(" {number}{delimiter} ");
        if let Some((item, rest)) = text.split_once(&marker)
            && item.trim_end().ends_with(['.', '!', '?', '"', '”'])
        {
            return Some((item, rest));
        }
    }
    None
}

/// Drops everything up to the end of a reasoning model's thoughts.
pub(crate) fn without_thoughts(text: &str) -> &str {
    text.rsplit_once("</think>")
        .map_or(text, |(_, answer)| answer)
}

/// Takes away quotes and emphasis around the whole text.
pub(crate) fn undress(text: &str) -> &str {
    const PAIRS: [(&str, &str); 7] = [
        ("**", "**"),
        ("*", "*"),
        ("`", "`"),
        ("\"", "\""),
        ("“", "”"),
        ("‘", "’"),
        ("'", "'"),
    ];
    let mut text = text.trim();
    loop {
        let bare = PAIRS.iter().find_map(|(open, close)| {
            // A comma behind the closing quote is that of a programmer's list.
            let end = text.strip_suffix(',').filter(|end| end.ends_with(close));
            let inner = end
                .unwrap_or(text)
                .strip_prefix(open)?
                .strip_suffix(close)?;
            let nested = inner.contains(open) || (open != close && inner.contains(close));
            // Apostrophes are no quotes: `'Tis the dogs'` is rare, `'a dog's bone'` is not.
            (!nested || *open == "'" || *open == "‘").then(|| inner.trim())
        });
        match bare {
            Some(inner) if inner.len() < text.len() => text = inner,
            _ => return text,
        }
    }
}

#[cfg(test)]
mod tests;
