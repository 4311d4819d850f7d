//! What an error reply of the store's says: its class, and the command that it refused. It knows the
//! words of Redis 6.2 and 7 and of Valkey; not who asked, nor what is to be done about it.

/// The code that an error reply bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// It does not know the script.
    NoScript,
    /// A replica: it takes no writes.
    ReadOnly,
    /// A replica that has lost its primary, and tells nothing meanwhile.
    MasterDown,
    NoAuth,
    WrongPass,
    /// A command or a key that the user may not use, in the script or outside.
    NoPerm,
    /// It cannot save to disk, and takes no writes meanwhile.
    Misconf,
    /// Too few replicas follow it, and it takes no writes meanwhile.
    NoReplicas,
    /// It reads its data from disk.
    Loading,
    /// Its memory is full, and nothing may be evicted.
    OutOfMemory,
    /// A script or a function runs for too long.
    Busy,
    /// The slot is at another node of the cluster, on its way there, or nowhere.
    Elsewhere,
    Other,
}

/// In the order of their codes.
const CODES: [(&[u8], ErrorClass); 15] = [
    (b"ASK", ErrorClass::Elsewhere),
    (b"BUSY", ErrorClass::Busy),
    (b"CLUSTERDOWN", ErrorClass::Elsewhere),
    (b"LOADING", ErrorClass::Loading),
    (b"MASTERDOWN", ErrorClass::MasterDown),
    (b"MISCONF", ErrorClass::Misconf),
    (b"MOVED", ErrorClass::Elsewhere),
    (b"NOAUTH", ErrorClass::NoAuth),
    (b"NOPERM", ErrorClass::NoPerm),
    (b"NOREPLICAS", ErrorClass::NoReplicas),
    (b"NOSCRIPT", ErrorClass::NoScript),
    (b"OOM", ErrorClass::OutOfMemory),
    (b"READONLY", ErrorClass::ReadOnly),
    (b"TRYAGAIN", ErrorClass::Elsewhere),
    (b"WRONGPASS", ErrorClass::WrongPass),
];

/// How Redis says within a script what is NOPERM outside of one: Redis 6.2 and 7, and Valkey.
const NOT_PERMITTED: [&[u8]; 3] = [
    b"user executing the script can't run",
    b"user executing the script can't access",
    b"ACL failure in script",
];

/// How Redis 6.2 tells, within a script's error, where the error of a command begins.
const WRAPPED: &[u8] = b": -";

impl ErrorClass {
    /// Of an error reply, without the `-` that it begins with.
    pub fn of(error: &[u8]) -> ErrorClass {
        let wrapped = find(error, WRAPPED).and_then(|at| error.get(at + WRAPPED.len()..));
        let class = code(error).or_else(|| wrapped.and_then(code));
        class.unwrap_or_else(|| {
            let not_permitted = NOT_PERMITTED
                .iter()
                .any(|words| find(error, words).is_some());
            match not_permitted {
                true => ErrorClass::NoPerm,
                false => ErrorClass::Other,
            }
        })
    }

    /// Whether whoever asks again on the same connection is told the same: another connection may
    /// lead to another server, or to one whose secret or users are known.
    pub fn stays(self) -> bool {
        match self {
            ErrorClass::ReadOnly
            | ErrorClass::MasterDown
            | ErrorClass::NoAuth
            | ErrorClass::WrongPass
            | ErrorClass::NoPerm
            | ErrorClass::Misconf
            | ErrorClass::NoReplicas
            | ErrorClass::Loading => true,
            ErrorClass::NoScript
            | ErrorClass::OutOfMemory
            | ErrorClass::Busy
            | ErrorClass::Elsewhere
            | ErrorClass::Other => false,
        }
    }
}

/// The class whose code is the first word.
fn code(error: &[u8]) -> Option<ErrorClass> {
    let word = error.split(|byte| !byte.is_ascii_uppercase()).next()?;
    let known = CODES.iter().find(|(code, _)| *code == word);
    known.map(|(_, class)| *class)
}

/// Whether an error has these words in it.
pub fn holds(error: &[u8], words: &[u8]) -> bool {
    find(error, words).is_some()
}

fn find(text: &[u8], words: &[u8]) -> Option<usize> {
    text.windows(words.len()).position(|part| part == words)
}

/// The command that an error of [`ErrorClass::NoPerm`] is about, in capitals. Valkey names it, and
/// Redis does outside of a script; within one it tells only the line, so `script` is the one that ran,
/// and that names itself what it only reads, in brackets at the end.
pub fn refused_command(error: &[u8], script: &str) -> Option<String> {
    const NAMED: &[u8] = b"to run the '";
    const LINE: &[u8] = b"@user_script:";
    if let Some(at) = find(error, NAMED) {
        let rest = error.get(at + NAMED.len()..)?;
        let name = rest.split(|byte| *byte == b'\'').next()?;
        return Some(String::from_utf8_lossy(name).to_uppercase());
    }
    if let Some((_, last)) = std::str::from_utf8(error).ok()?.rsplit_once(" (")
        && let Some(command) = last.trim_end().strip_suffix(')')
        && is_command(command)
    {
        return Some(command.to_owned());
    }
    // Redis 6.2 tells the line twice.
    let at = find(error, LINE)?;
    let digits = error.get(at + LINE.len()..)?.trim_ascii_start();
    let digits = digits.split(|byte| !byte.is_ascii_digit()).next()?;
    let line: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let line = script.lines().nth(line.checked_sub(1)?)?;
    // A command stands in capitals and quotes, behind what calls it.
    let called = line
        .split_once("call(")
        .or_else(|| line.split_once("try("))?
        .1;
    let command = called.split('\'').find(|word| is_command(word));
    command.map(str::to_owned)
}

fn is_command(word: &str) -> bool {
    word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As they came from Redis 6.2.5 and 7.0.15 and from Valkey 9.1.2.
    #[test]
    fn the_class_is_found_at_the_start_and_within_a_scripts_error() {
        for (error, class) in [
            (
                "READONLY You can't write against a read only replica. script: ff42, on @user_script:2.",
                ErrorClass::ReadOnly,
            ),
            (
                "READONLY You can't write against a read only replica. script: on @user_script:2.",
                ErrorClass::ReadOnly,
            ),
            (
                "ERR Error running script (call to f_ff42): @user_script:2: @user_script: 2: -READONLY You can't write against a read only replica.",
                ErrorClass::ReadOnly,
            ),
            (
                "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
                ErrorClass::MasterDown,
            ),
            ("NOAUTH Authentication required.", ErrorClass::NoAuth),
            (
                "WRONGPASS invalid username-password pair or user is disabled.",
                ErrorClass::WrongPass,
            ),
            (
                "NOPERM this user has no permissions to run the 'eval' command or its subcommand",
                ErrorClass::NoPerm,
            ),
            (
                "ERR Error running script (call to f_e362): @user_script:2: @user_script: 2: The user executing the script can't run this command or subcommand",
                ErrorClass::NoPerm,
            ),
            (
                "ERR The user executing the script can't run this command or subcommand script: e362, on @user_script:2.",
                ErrorClass::NoPerm,
            ),
            (
                "ERR The user executing the script can't access at least one of the keys mentioned in the command arguments script: 6bd7, on @user_script:1.",
                ErrorClass::NoPerm,
            ),
            (
                "ERR ACL failure in script: User t has no permissions to run the 'exists' command script: on @user_script:2.",
                ErrorClass::NoPerm,
            ),
            (
                "ERR ACL failure in script: No permissions to access a key script: on @user_script:1.",
                ErrorClass::NoPerm,
            ),
            (
                "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
                ErrorClass::Misconf,
            ),
            (
                "NOREPLICAS Not enough good replicas to write. script: 8d2d, on @user_script:1.",
                ErrorClass::NoReplicas,
            ),
            (
                "LOADING Redis is loading the dataset in memory",
                ErrorClass::Loading,
            ),
        ] {
            assert_eq!(ErrorClass::of(error.as_bytes()), class, "{error}");
            assert!(class.stays(), "{error}");
        }
        for (error, class) in [
            (
                "OOM command not allowed when used memory > 'maxmemory'. script: on @user_script:1.",
                ErrorClass::OutOfMemory,
            ),
            (
                "ERR Error running script (call to f_8d2d): @user_script:1: @user_script: 1: -OOM command not allowed when used memory > 'maxmemory'.",
                ErrorClass::OutOfMemory,
            ),
            (
                "NOSCRIPT No matching script. Please use EVAL.",
                ErrorClass::NoScript,
            ),
            ("MOVED 3999 127.0.0.1:6381", ErrorClass::Elsewhere),
            ("CLUSTERDOWN The cluster is down", ErrorClass::Elsewhere),
            ("BUSY Redis is busy running a script.", ErrorClass::Busy),
            (
                "ERR user_script:1: too many results to unpack",
                ErrorClass::Other,
            ),
            ("ERR READONLY is no command", ErrorClass::Other),
            ("READONLYX", ErrorClass::Other),
            ("", ErrorClass::Other),
        ] {
            assert_eq!(ErrorClass::of(error.as_bytes()), class, "{error}");
            assert!(!class.stays(), "{error}");
        }
    }

    #[test]
    fn the_command_that_is_missing_is_named_whether_it_is_told_or_only_its_line() {
        let script =
            "local a = 1\nlocal told = try('LINDEX', key, '-1')\nredis.call('SET', 'KEEPTTL')\n";
        for (error, command) in [
            (
                "ERR ACL failure in script: User t has no permissions to run the 'exists' command script: on @user_script:2.",
                Some("EXISTS"),
            ),
            (
                "NOPERM this user has no permissions to run the 'eval' command",
                Some("EVAL"),
            ),
            (
                "ERR The user executing the script can't run this command or subcommand script: e362, on @user_script:2.",
                Some("LINDEX"),
            ),
            (
                "ERR Error running script (call to f_e362): @user_script:3: @user_script: 3: The user executing the script can't run this command or subcommand",
                Some("SET"),
            ),
            (
                "ERR The user executing the script can't run this command or subcommand (EXISTS)",
                Some("EXISTS"),
            ),
            (
                "@user_script: 3: The user executing the script can't run this command or subcommand (LLEN)",
                Some("LLEN"),
            ),
            (
                "ERR The user executing the script can't run this command or subcommand script: e362, on @user_script:1.",
                None,
            ),
            (
                "ERR The user executing the script can't run this command or subcommand script: e362, on @user_script:99.",
                None,
            ),
        ] {
            let told = refused_command(error.as_bytes(), script);
            assert_eq!(told.as_deref(), command, "{error}");
        }
    }
}
