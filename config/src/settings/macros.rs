//! One declaration per setting: its field, default, range and reader cannot drift apart.

/// Declares a section: the struct, its `Default`, and the function that reads it.
macro_rules! section {
    ($(#[$meta:meta])* $vis:vis struct $name:ident = $section:literal {
        $($(#[$doc:meta])* $field:ident: $type:ty = $default:expr $(, in $range:expr)?;)+
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        $vis struct $name {
            $($(#[$doc])* pub $field: $type,)+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl $name {
            fn read(reader: &mut $crate::settings::read::Reader) -> Self {
                reader.section($section, |section| Self {
                    $($field: $crate::settings::macros::take!(
                        section, $field, $default $(, $range)?
                    ),)+
                })
            }
        }
    };
}

/// Takes one key, with or without a range.
macro_rules! take {
    ($section:ident, $field:ident, $default:expr) => {
        $section.take(stringify!($field), $default)
    };
    ($section:ident, $field:ident, $default:expr, $range:expr) => {
        $section.take_within(stringify!($field), $default, $range)
    };
}

/// Declares a setting with a closed set of words.
macro_rules! words {
    ($(#[$meta:meta])* $vis:vis enum $name:ident : $expected:literal {
        $($(#[$doc:meta])* $variant:ident = $word:literal,)+
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name {
            $($(#[$doc])* $variant,)+
        }

        impl $crate::settings::value::FromValue for $name {
            const EXPECTED: &'static str = $expected;

            fn from_text(text: &str) -> Option<Self> {
                match text {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

pub(super) use {section, take, words};
