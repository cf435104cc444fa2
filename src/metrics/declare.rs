//! The macro that declares the metrics of a module.

/// Declares a struct of metrics.
///
/// A metric is `pub NAME: INSTRUMENT;`. Its documentation is its help text, its name the exported one without the prefix
/// `copydesk_`. The struct is cheap to clone: its clones measure together.
#[doc(hidden)]
#[macro_export]
macro_rules! __metrics {
    (
        $(#[$meta:meta])*
        $vis:vis struct $set:ident {
            $(
                $(#[doc = $help:literal])+
                $field:vis $name:ident: $instrument:ty;
            )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default)]
        $vis struct $set {
            $( $(#[doc = $help])+ $field $name: $instrument, )+
        }

        impl $crate::metrics::MetricSet for $set {
            fn register(&self, registry: &mut $crate::metrics::Registry) {
                $(
                    let help: &str = concat!($($help),+);
                    // The registry adds the full stop.
                    registry.register(stringify!($name), help.trim().trim_end_matches('.'), self.$name.clone());
                )+
            }
        }
    };
}
