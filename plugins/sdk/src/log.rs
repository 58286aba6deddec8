//! Lines for the host's log. They carry the saga, step and attempt by themselves. In a native
//! test they go to standard error.

macro_rules! levels {
    ($($(#[$doc:meta])* $name:ident $level:ident;)*) => {
        $(
            $(#[$doc])*
            pub fn $name(message: &str, fields: &[(&str, &str)]) {
                #[cfg(target_family = "wasm")]
                {
                    let fields: Vec<_> = fields
                        .iter()
                        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                        .collect();
                    crate::bindings::log::write(crate::bindings::log::Level::$level, message, &fields);
                }
                #[cfg(not(target_family = "wasm"))]
                eprintln!("{}: {message} {fields:?}", stringify!($name));
            }
        )*
    };
}

levels! {
    /// For whoever looks closely.
    debug Debug;
    /// Worth knowing.
    info Info;
    /// Something is odd.
    warn Warn;
    /// Something is wrong.
    error Error;
}
