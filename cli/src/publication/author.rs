//! Who publishes, for whoever reads the history at night.

/// `USER@HOST`, unless the operator or their pipeline says it better.
pub fn author() -> String {
    let user = whoami::username().unwrap_or_else(|_| "somebody".to_owned());
    match whoami::hostname() {
        Ok(host) => format!("{user}@{host}"),
        Err(_) => user,
    }
}
