//! Labels whose values are known at compile time.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};

/// A label: an enum of its values. Declare one with [`labels!`](crate::__labels).
pub trait Label: Copy + fmt::Debug + Send + Sync + 'static {
    /// The name of the label.
    const NAME: &'static str;
    /// All values, in the order of their declaration.
    const ALL: &'static [Self];

    /// The value as it is exported.
    fn value(self) -> &'static str;

    /// The place of the value in [`ALL`](Self::ALL).
    fn index(self) -> usize;
}

/// The labels of a family of series: one label, or two.
pub trait LabelSet: Copy + fmt::Debug + Send + Sync + 'static {
    /// All combinations of values, in the order of their [indices](Self::index).
    fn all() -> Vec<Self>;

    /// The place of these values in [`all`](Self::all).
    fn index(self) -> usize;

    /// The names and values.
    fn pairs(self) -> Vec<(&'static str, &'static str)>;
}

impl<L: Label> LabelSet for L {
    fn all() -> Vec<Self> {
        L::ALL.to_vec()
    }

    fn index(self) -> usize {
        Label::index(self)
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        vec![(L::NAME, self.value())]
    }
}

impl<A: Label, B: Label> LabelSet for (A, B) {
    fn all() -> Vec<Self> {
        let with_first = |first: &A| {
            B::ALL
                .iter()
                .map(move |second| (*first, *second))
                .collect::<Vec<_>>()
        };
        A::ALL.iter().flat_map(with_first).collect()
    }

    fn index(self) -> usize {
        Label::index(self.0) * B::ALL.len() + Label::index(self.1)
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        vec![(A::NAME, self.0.value()), (B::NAME, self.1.value())]
    }
}

/// Encodes a label set.
#[derive(Debug)]
pub(super) struct EncodedLabels<S>(pub(super) S);

impl<S: LabelSet> EncodeLabelSet for EncodedLabels<S> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.pairs().as_slice().encode(encoder)
    }
}

/// Declares a label as an enum: `pub enum NAME: "label" { Value = "value", … }`.
#[doc(hidden)]
#[macro_export]
macro_rules! __labels {
    (
        $(#[$meta:meta])*
        $vis:vis enum $label:ident: $name:literal {
            $( $(#[$doc:meta])* $value:ident = $text:literal, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $label {
            $( $(#[$doc])* $value, )+
        }

        impl $crate::metrics::Label for $label {
            const NAME: &'static str = $name;
            const ALL: &'static [Self] = &[$( Self::$value, )+];

            fn value(self) -> &'static str {
                match self {
                    $( Self::$value => $text, )+
                }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}
