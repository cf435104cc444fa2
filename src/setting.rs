//! Declares settings: the name, type, default, range and reason of a setting stand together at its field.
//!
//! [`settings!`](settings) makes a section of `config.toml`: the struct, its defaults, and the list of its settings with
//! the allowed ranges ([`Section`]). `config` reads the sections and checks all of them in one place.

#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

use std::fmt::{self, Debug};
use std::ops::RangeInclusive;

/// The settings of one section of the configuration.
pub trait Section {
    /// All settings of the section with their current values, in the order of their declaration.
    fn settings(&self) -> Vec<Setting>;
}

/// One setting and its current value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key in the section.
    pub name: &'static str,
    /// The value and its range; `None` if the setting is not a number.
    pub number: Option<BoundedNumber>,
    /// True if the value holds a password or key, so that errors must not show it.
    pub is_secret: bool,
}

/// The value of a number and the range that it must lie in, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundedNumber {
    /// The current value.
    pub value: u64,
    /// The smallest allowed value.
    pub least: u64,
    /// The largest allowed value.
    pub most: u64,
}

impl BoundedNumber {
    /// A number of any unsigned type, with its range.
    pub fn new<T>(value: T, range: RangeInclusive<T>) -> Self
    where
        T: Copy,
        u64: TryFrom<T>,
    {
        let number = |value| u64::try_from(value).unwrap_or(u64::MAX);
        Self {
            value: number(value),
            least: number(*range.start()),
            most: number(*range.end()),
        }
    }

    /// Returns true if the value lies in the range.
    #[must_use]
    pub fn is_in_range(&self) -> bool {
        (self.least..=self.most).contains(&self.value)
    }
}

/// Shows whether a secret is set, and not its value.
#[derive(Clone, Copy)]
pub struct Redacted {
    /// False if the secret has its default value, which is empty.
    pub is_set: bool,
}

impl Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_set {
            "set, not shown"
        } else {
            "none"
        })
    }
}

impl Redacted {
    /// Hides `secret`.
    pub fn new<T: Default + PartialEq>(secret: &T) -> Self {
        Self {
            is_set: *secret != T::default(),
        }
    }
}

/// Declares a section of the configuration.
///
/// A setting is `pub NAME: TYPE = DEFAULT`. Numbers add their range: `, in LEAST..=MOST`. A value that errors must not show
/// adds `=> secret`; if the type's own `Debug` already hides it, `=> self_redacting`. The block `derived { … }` holds fields
/// that are computed from other settings and cannot be set in the configuration.
#[doc(hidden)]
#[macro_export]
macro_rules! __settings {
    (
        $(#[$meta:meta])*
        pub struct $section:ident {
            $(
                $(#[$doc:meta])*
                pub $name:ident: $type:ty = $default:expr $(, in $range:expr)? $(=> $secret:ident)?;
            )*
            $( derived {
                $(
                    $(#[$derived_doc:meta])*
                    pub $derived:ident: $derived_type:ty = $derived_default:expr;
                )*
            } )?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, ::serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $section {
            $( $(#[$doc])* pub $name: $type, )*
            $( $( $(#[$derived_doc])* #[serde(skip)] pub $derived: $derived_type, )* )?
        }

        impl ::std::default::Default for $section {
            fn default() -> Self {
                Self {
                    $( $name: $default, )*
                    $( $( $derived: $derived_default, )* )?
                }
            }
        }

        impl ::std::fmt::Debug for $section {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.debug_struct(stringify!($section))
                    $( .field(stringify!($name), &$crate::__settings!(@shown &self.$name $(, $secret)?)) )*
                    .finish()
            }
        }

        impl $crate::setting::Section for $section {
            fn settings(&self) -> ::std::vec::Vec<$crate::setting::Setting> {
                vec![
                    $( $crate::setting::Setting {
                        name: stringify!($name),
                        number: $crate::__settings!(@number self.$name $(, $range)?),
                        is_secret: $crate::__settings!(@is_secret $($secret)?),
                    }, )*
                ]
            }
        }
    };
    (@shown $value:expr, secret) => { $crate::setting::Redacted::new($value) };
    (@shown $value:expr $(, self_redacting)?) => { $value };
    (@number $value:expr) => { None };
    (@number $value:expr, $range:expr) => { Some($crate::setting::BoundedNumber::new($value, $range)) };
    (@is_secret) => { false };
    (@is_secret $secret:ident) => { true };
}

pub use crate::__settings as settings;

#[cfg(test)]
mod tests {
    #![expect(unreachable_pub, reason = "the macro declares public types")]

    use super::*;

    settings! {
        /// A section for tests.
        pub struct Sample {
            /// A number.
            pub count_max: u32 = 7, in 1..=10;
            /// A text.
            pub label: String = "plain".to_owned();
            /// A secret.
            pub key: String = String::new() => secret;
            derived {
                /// Computed.
                pub doubled: u32 = 14;
            }
        }
    }

    #[test]
    fn section_lists_its_settings_with_ranges() {
        let [count_max, label, key] = <[Setting; 3]>::try_from(Sample::default().settings())
            .expect("three settings; derived fields are none");
        let number = BoundedNumber {
            value: 7,
            least: 1,
            most: 10,
        };
        assert_eq!(
            (count_max.name, count_max.number),
            ("count_max", Some(number))
        );
        assert_eq!((label.name, label.number), ("label", None));
        assert!(key.is_secret && !label.is_secret);
    }

    #[test]
    fn both_ends_of_a_range_are_allowed() {
        for (value, allowed) in [(0, false), (1, true), (10, true), (11, false)] {
            assert_eq!(
                BoundedNumber::new(value, 1_u64..=10).is_in_range(),
                allowed,
                "{value}"
            );
        }
    }

    #[test]
    fn missing_fields_have_their_defaults() {
        let sample: Sample = toml::from_str("label = \"other\"").expect("a section");
        assert_eq!((sample.count_max, sample.doubled), (7, 14));
        assert_eq!(sample.label, "other");
    }

    #[test]
    fn debug_output_hides_secrets() {
        let sample = Sample {
            key: "hunter2".to_owned(),
            ..Sample::default()
        };
        let shown = format!("{sample:?} {:?}", Sample::default());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(
            shown.contains("key: set, not shown") && shown.contains("key: none"),
            "{shown}"
        );
    }
}
