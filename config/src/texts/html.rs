//! What a page says: its title, description, headings and text.
//!
//! The pages are strangers', so this reads in one pass, in time and memory linear in the page, and
//! builds no tree: a tree builder takes minutes for a few MiB of `<div>` that nobody closes. What is
//! read is what the tokenizer of the HTML standard (§13.2.5) would call character tokens, less
//! scripts, styles and comments.

/// What was read of a page; all of it bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) headings: Vec<String>,
    pub(crate) text: String,
}

const TITLE_CHARACTERS: usize = 200;
const DESCRIPTION_CHARACTERS: usize = 500;
const HEADINGS: usize = 40;
const HEADING_CHARACTERS: usize = 200;
const TEXT_CHARACTERS: usize = 20_000;

/// Elements whose content is not for readers.
const HIDDEN: [&str; 7] = ["script", "style", "template", "svg", "iframe", "textarea", "object"];

/// Elements that stand within a line.
const INLINE: [&str; 18] = [
    "a", "abbr", "b", "bdi", "cite", "code", "em", "font", "i", "kbd", "mark", "q", "s", "small",
    "span", "strong", "sub", "u",
];

/// Reads a page.
pub(crate) fn read(html: &str) -> Page {
    let mut reader = Reader::default();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        let (text, tag) = rest.split_at(at);
        reader.characters(text);
        rest = reader.markup(tag);
    }
    reader.characters(rest);
    reader.finish()
}

#[derive(Default)]
struct Reader {
    page: Page,
    text: Squeezed,
    heading: Option<Squeezed>,
    title: Option<Squeezed>,
}

impl Reader {
    fn characters(&mut self, raw: &str) {
        if raw.is_empty() {
            return;
        }
        let text = decode(raw);
        if let Some(title) = &mut self.title {
            title.push(&text, TITLE_CHARACTERS);
            return;
        }
        if let Some(heading) = &mut self.heading {
            heading.push(&text, HEADING_CHARACTERS);
        }
        self.text.push(&text, TEXT_CHARACTERS);
    }

    /// Takes what begins with `<`; returns what follows it.
    fn markup<'a>(&mut self, from: &'a str) -> &'a str {
        let inner = from.strip_prefix('<').unwrap_or(from);
        if let Some(comment) = inner.strip_prefix("!--") {
            return after(comment, "-->");
        }
        match inner.chars().next() {
            Some('!' | '?') => after(inner, ">"),
            Some('/') => {
                let name = name_of(inner.trim_start_matches('/'));
                self.end(&name);
                after(inner, ">")
            }
            Some(c) if c.is_ascii_alphabetic() => self.start(inner),
            _ => {
                self.characters("<");
                inner
            }
        }
    }

    fn start<'a>(&mut self, inner: &'a str) -> &'a str {
        let name = name_of(inner);
        let (attributes, rest) = split_tag(inner.get(name.len()..).unwrap_or_default());
        if HIDDEN.contains(&name.as_str()) {
            return if attributes.ends_with('/') { rest } else { after_element(rest, &name) };
        }
        match name.as_str() {
            "title" if self.page.title.is_empty() => self.title = Some(Squeezed::default()),
            "meta" => self.meta(attributes),
            "h1" | "h2" | "h3" => self.heading = Some(Squeezed::default()),
            _ => {}
        }
        self.separate(&name);
        rest
    }

    fn end(&mut self, name: &str) {
        match name {
            "title" => {
                self.page.title = self.title.take().map(Squeezed::finish).unwrap_or_default();
            }
            "h1" | "h2" | "h3" => self.end_heading(),
            _ => {}
        }
        self.separate(name);
    }

    fn end_heading(&mut self) {
        let heading = self.heading.take().map(Squeezed::finish).unwrap_or_default();
        let is_new = !heading.is_empty() && !self.page.headings.contains(&heading);
        if is_new && self.page.headings.len() < HEADINGS {
            self.page.headings.push(heading);
        }
    }

    fn separate(&mut self, name: &str) {
        if !INLINE.contains(&name) {
            self.text.new_line();
            if let Some(heading) = &mut self.heading {
                heading.space();
            }
        }
    }

    fn meta(&mut self, attributes: &str) {
        let attributes = attribute_list(attributes);
        let value = |wanted: &str| {
            let found = attributes.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| *value)
        };
        let name = value("name").or_else(|| value("property")).unwrap_or_default();
        let is_description = ["description", "og:description"].contains(&name);
        if is_description && self.page.description.is_empty() {
            let mut text = Squeezed::default();
            text.push(&decode(value("content").unwrap_or_default()), DESCRIPTION_CHARACTERS);
            self.page.description = text.finish();
        }
    }

    fn finish(mut self) -> Page {
        self.end_heading();
        if let Some(title) = self.title.take() {
            self.page.title = title.finish();
        }
        self.page.text = self.text.finish();
        self.page
    }
}

/// Text whose white space is one space or one line break, and which ends at a limit.
#[derive(Default)]
struct Squeezed {
    text: String,
    characters: usize,
    pending: Option<char>,
}

impl Squeezed {
    fn push(&mut self, text: &str, limit: usize) {
        for c in text.chars() {
            if c.is_whitespace() || c.is_control() {
                self.pending = self.pending.or(Some(' '));
            } else if self.characters < limit {
                if let Some(space) = self.pending.take().filter(|_| !self.text.is_empty()) {
                    self.text.push(space);
                    self.characters += 1;
                }
                self.text.push(c);
                self.characters += 1;
            } else {
                return;
            }
        }
    }

    const fn space(&mut self) {
        self.pending = Some(' ');
    }

    const fn new_line(&mut self) {
        self.pending = Some('\n');
    }

    fn finish(self) -> String {
        self.text
    }
}

/// What follows the first `end`, or nothing.
fn after<'a>(text: &'a str, end: &str) -> &'a str {
    text.split_once(end).map_or("", |(_, rest)| rest)
}

/// What follows the end tag of an element whose content is not markup.
fn after_element<'a>(text: &'a str, name: &str) -> &'a str {
    let mut rest = text;
    while let Some((_, tail)) = rest.split_once("</") {
        if name_of(tail) == name {
            return after(tail, ">");
        }
        rest = tail;
    }
    ""
}

/// The name of a tag, in lower case.
fn name_of(text: &str) -> String {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(text.len());
    text.get(..end.min(MAX_NAME)).unwrap_or_default().to_ascii_lowercase()
}

/// Longest name that is looked at.
const MAX_NAME: usize = 32;

/// The attributes of a tag and what follows its `>`, which may stand in quotes before.
fn split_tag(text: &str) -> (&str, &str) {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (c, quote) {
            ('>', None) => return (text.get(..at).unwrap_or(""), text.get(at + 1..).unwrap_or("")),
            ('"' | '\'', None) => quote = Some(c),
            (_, Some(open)) if c == open => quote = None,
            _ => {}
        }
    }
    (text, "")
}

/// Names and values; those without quotes end at white space.
fn attribute_list(text: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some((name, tail)) = rest.split_once('=') {
        let name = name.rsplit(char::is_whitespace).next().unwrap_or_default();
        let tail = tail.trim_start();
        let (value, next) = match tail.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let inside = tail.get(1..).unwrap_or_default();
                inside.split_once(quote).unwrap_or((inside, ""))
            }
            _ => tail.split_once(char::is_whitespace).unwrap_or((tail, "")),
        };
        found.push((name, value));
        rest = next;
    }
    found
}

/// The characters that are written by name where people write pages by hand.
const NAMED: [(&str, &str); 22] = [
    ("amp", "&"),
    ("lt", "<"),
    ("gt", ">"),
    ("quot", "\""),
    ("apos", "'"),
    ("nbsp", " "),
    ("copy", "©"),
    ("reg", "®"),
    ("trade", "™"),
    ("hellip", "…"),
    ("mdash", "—"),
    ("ndash", "–"),
    ("lsquo", "‘"),
    ("rsquo", "’"),
    ("ldquo", "“"),
    ("rdquo", "”"),
    ("bull", "•"),
    ("middot", "·"),
    ("euro", "€"),
    ("auml", "ä"),
    ("ouml", "ö"),
    ("uuml", "ü"),
];

/// Longest text of a character reference.
const MAX_REFERENCE: usize = 10;

/// Replaces character references (HTML §13.5); what is none stays as it is.
fn decode(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('&') {
        let (plain, tail) = rest.split_at(at);
        out.push_str(plain);
        let reference = tail.get(1..).unwrap_or_default();
        let end = reference.bytes().take(MAX_REFERENCE).position(|byte| byte == b';');
        let decoded = end.and_then(|end| reference.get(..end)).and_then(character);
        match (decoded, end) {
            (Some(text), Some(end)) => {
                out.push_str(&text);
                rest = reference.get(end + 1..).unwrap_or_default();
            }
            _ => {
                out.push('&');
                rest = reference;
            }
        }
    }
    out.push_str(rest);
    out
}

fn character(reference: &str) -> Option<String> {
    let Some(number) = reference.strip_prefix('#') else {
        let named = NAMED.iter().find(|(name, _)| *name == reference);
        return named.map(|(_, text)| (*text).to_owned());
    };
    let code = match number.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => number.parse().ok(),
    };
    code.and_then(char::from_u32).map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_what_its_reader_sees() {
        let page = read(
            "<!DOCTYPE html><html><head><title>Ada &amp; Sons\n Ltd</title>\
             <META content='We fix &#8220;phones&#x201D;.' name=description>\
             <style>h1 { color: red }</style><script>if (a < b) { \"</p>\" }</script></head>\
             <body><!-- <h1>not this</h1> --><H1 class=\"a > b\">Phones,<br>fixed</H1>\
             <p>Call&nbsp;us <b>now</b>: 5 < 6.</p><ul><li>One<li>Two</ul>\
             <h2>Hours</h2><h2>Hours</h2><svg><title>icon</title></svg></body></html>",
        );
        assert_eq!(page.title, "Ada & Sons Ltd");
        assert_eq!(page.description, "We fix “phones”.");
        assert_eq!(page.headings, ["Phones, fixed", "Hours"]);
        assert_eq!(page.text, "Phones,\nfixed\nCall us now: 5 < 6.\nOne\nTwo\nHours\nHours");
    }

    #[test]
    fn what_is_not_closed_ends_with_the_page() {
        assert_eq!(read("<title>half").title, "half");
        assert_eq!(read("<h1>half").headings, ["half"]);
        for odd in
            ["<", "</", "<!", "<!--", "<a", "<a href='", "<script>", "a<script", "&", "&#", "<3"]
        {
            let _ = read(odd);
        }
        assert_eq!(read("a <script>b</scripty>c</script >d").text, "a\nd".replace('\n', " "));
        assert_eq!(read("AT&T &unknown; &#xD800; 1 <2").text, "AT&T &unknown; &#xD800; 1 <2");
    }

    #[test]
    fn every_part_is_bounded() {
        let page = read(&format!(
            "<title>{0}</title><meta name=description content='{0}'>{1}{0}",
            "x".repeat(100_000),
            (0..1_000).map(|n| format!("<h2>{n} {}</h2>", "y".repeat(1_000))).collect::<String>(),
        ));
        assert_eq!((page.title.len(), page.description.len()), (200, 500));
        assert_eq!(page.headings.len(), 40);
        assert!(page.headings.iter().all(|heading| heading.len() <= 201));
        assert!(page.text.len() <= 20_001);
    }

    #[test]
    fn hostile_pages_are_read_in_one_pass() {
        // A MiB each. Quadratic work would take minutes.
        for part in [
            "<div>",
            "<p><b>",
            "</",
            "<!--",
            "<script>",
            "&#",
            "<a b=\"",
            "<h1>",
            "<",
            "<title>",
            "</script",
            "<svg></sv",
        ] {
            let page = part.repeat(1_024 * 1_024 / part.len());
            let _ = read(&page);
        }
    }
}
