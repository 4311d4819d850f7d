//! What can go wrong with one Redis, and on the way to it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weir_lab::redis::Redis;

use crate::watch::{Counted, TIGHT, Watch};
use crate::world::Single;

pub const A_WHILE: Duration = Duration::from_millis(1200);
const NO_JITTER: Duration = Duration::ZERO;

pub type Case = fn(&str, &mut Single) -> Result<()>;

pub const CASES: &[(&str, Case)] = &[
    ("redis_is_killed_and_restarted_empty", killed),
    ("redis_hangs_and_goes_on", hung),
    ("redis_is_20_ms_away", far),
    ("redis_is_200_ms_away", too_far),
    ("redis_is_now_near_now_far", jitter),
    ("redis_refuses_connections", refusing),
    ("connections_are_lost_without_a_word", half_open),
    ("the_network_hangs", network_hung),
    ("a_replica_is_promoted", promoted),
    ("a_primary_is_demoted_behind_its_address", demoted),
    ("redis_is_out_of_memory", out_of_memory),
    ("a_key_holds_something_else", wrong_type),
    ("the_password_changes", wrong_password),
    ("scripts_are_flushed", script_flush),
    ("clients_hang_up_by_the_thousand", hang_ups),
];

fn killed(name: &str, world: &mut Single) -> Result<()> {
    let mut watch = Watch::start(name, &world.gateway)?;
    watch.go_on(A_WHILE);
    world.redis.stop();
    watch.degrades()?;
    world.redis.restart()?;
    watch.recovers()?;
    watch.go_on(A_WHILE);
    watch.ends(Counted::Afresh)?.opened()
}

fn hung(name: &str, world: &mut Single) -> Result<()> {
    let mut watch = Watch::start(name, &world.gateway)?;
    world.redis.pause()?;
    watch.degrades()?;
    world.redis.resume()?;
    watch.recovers()?;
    watch.go_on(A_WHILE);
    watch.ends(Counted::Throughout)?.opened()
}

fn far(name: &str, world: &mut Single) -> Result<()> {
    let watch = Watch::start(name, &world.gateway)?;
    world.proxy.delay(Duration::from_millis(20), NO_JITTER);
    watch.go_on(2 * A_WHILE);
    world.proxy.heal()?;
    watch.ends(Counted::Throughout)?.hardly_notices(|_| true)
}

fn too_far(name: &str, world: &mut Single) -> Result<()> {
    let mut watch = Watch::start(name, &world.gateway)?;
    world.proxy.delay(Duration::from_millis(200), NO_JITTER);
    watch.degrades()?;
    world.proxy.heal()?;
    watch.recovers()?;
    watch.go_on(A_WHILE);
    watch.ends(Counted::Throughout)?.opened()
}

fn jitter(name: &str, world: &mut Single) -> Result<()> {
    let mut watch = Watch::start(name, &world.gateway)?;
    world.proxy.delay(Duration::ZERO, Duration::from_millis(80));
    watch.go_on(2 * A_WHILE);
    world.proxy.heal()?;
    watch.recovers()?;
    watch.ends(Counted::Throughout)?;
    Ok(())
}

fn refusing(name: &str, world: &mut Single) -> Result<()> {
    let mut watch = Watch::start(name, &world.gateway)?;
    world.proxy.refuse();
    watch.degrades()?;
    world.proxy.heal()?;
    watch.recovers()?;
    watch.go_on(A_WHILE);
    watch.ends(Counted::Throughout)?.opened()
}

fn half_open(name: &str, world: &mut Single) -> Result<()> {
    let mut watch = Watch::start(name, &world.gateway)?;
    world.proxy.lose_connections();
    watch.go_on(A_WHILE);
    watch.recovers()?;
    watch.go_on(A_WHILE);
    watch.ends(Counted::Throughout)?;
    Ok(())
}

fn network_hung(name: &str, world: &mut Single) -> Result<()> {
    let mut watch = Watch::start(name, &world.gateway)?;
    world.proxy.hang();
    watch.degrades()?;
    world.proxy.heal()?;
    watch.recovers()?;
    watch.go_on(A_WHILE);
    watch.ends(Counted::Throughout)?.opened()
}

fn promoted(name: &str, world: &mut Single) -> Result<()> {
    let replica = Redis::start_with_password(crate::world::PASSWORD)?;
    replica.follow(&world.redis)?;
    let mut watch = Watch::start(name, &world.gateway)?;
    world.proxy.point_at(replica.address());
    watch.degrades()?;
    replica.promote()?;
    watch.recovers()?;
    watch.go_on(A_WHILE);
    let outcome = watch.ends(Counted::Throughout);
    world.proxy.point_at(world.redis.address());
    outcome?.opened()
}

/// Connections that are kept lead to what is a replica now; new ones lead to the new primary.
fn demoted(name: &str, world: &mut Single) -> Result<()> {
    let replica = Redis::start_with_password(crate::world::PASSWORD)?;
    replica.follow(&world.redis)?;
    let mut watch = Watch::start(name, &world.gateway)?;
    let port = replica.port().to_string();
    let mut operator = world.redis.connection()?;
    world.proxy.lead_to(replica.address());
    replica.promote()?;
    redis::cmd("REPLICAOF")
        .arg("127.0.0.1")
        .arg(port)
        .exec(&mut operator)?;
    watch.recovers()?;
    watch.go_on(A_WHILE);
    let outcome = watch.ends(Counted::ByReplica);
    world.redis.promote()?;
    world.proxy.point_at(world.redis.address());
    let outcome = outcome?;
    ensure!(
        outcome.marked() > 0,
        "nobody met the replica: {:?}",
        outcome.story
    );
    outcome.is_back_within(Duration::from_secs(2))
}

fn out_of_memory(name: &str, world: &mut Single) -> Result<()> {
    let mut watch = Watch::start(name, &world.gateway)?;
    world.redis.command(&["CONFIG", "SET", "maxmemory", "1"])?;
    watch.degrades()?;
    world.redis.command(&["CONFIG", "SET", "maxmemory", "0"])?;
    watch.recovers()?;
    watch.go_on(A_WHILE);
    watch.ends(Counted::Throughout)?.opened()
}

fn wrong_type(name: &str, world: &mut Single) -> Result<()> {
    let spoilt = format!("{name}-0");
    let key = format!("weir:2:{{u:{spoilt}}}:tight:user:sl3600s");
    world.redis.command(&["HSET", &key, "not", "ours"])?;
    let watch = Watch::unready(name, &world.gateway)?;
    watch.go_on(2 * A_WHILE);
    let outcome = watch.ends(Counted::Throughout)?;
    outcome.hardly_notices(|sample| sample.user != spoilt)?;
    let marked = outcome.marked_where(|sample| sample.user == spoilt);
    ensure!(
        marked > TIGHT,
        "{marked} answers are marked: {:?}",
        outcome.story
    );
    Ok(())
}

fn wrong_password(name: &str, world: &mut Single) -> Result<()> {
    let set = |connection: &mut redis::Connection, password: &str| -> Result<()> {
        let words = ["CONFIG", "SET", "requirepass", password];
        let mut command = redis::Cmd::new();
        Ok(command.arg(&words[..]).exec(connection)?)
    };
    let mut watch = Watch::start(name, &world.gateway)?;
    // Connections that are open stay welcome, this one and the gateway's.
    let mut operator = world.redis.connection()?;
    set(&mut operator, "another")?;
    world.proxy.cut();
    watch.degrades()?;
    set(&mut operator, crate::world::PASSWORD)?;
    // Envoy does not look at what becomes of its AUTH, and keeps a connection that was not let in.
    watch.recovers()?;
    watch.go_on(A_WHILE);
    watch.ends(Counted::Throughout)?.opened()
}

fn script_flush(name: &str, world: &mut Single) -> Result<()> {
    let watch = Watch::start(name, &world.gateway)?;
    let end = Instant::now() + 2 * A_WHILE;
    while Instant::now() < end {
        world.redis.command(&["SCRIPT", "FLUSH"])?;
        watch.go_on(Duration::from_millis(20));
    }
    watch.ends(Counted::Throughout)?.hardly_notices(|_| true)
}

fn hang_ups(name: &str, world: &mut Single) -> Result<()> {
    use std::io::Write;
    let mut watch = Watch::start(name, &world.gateway)?;
    watch.unseen = 2000;
    for number in 0..watch.unseen {
        let mut stream = std::net::TcpStream::connect(world.gateway.address())?;
        let head = format!(
            "GET /wide/x HTTP/1.1\r\nhost: weir\r\nx-user-id: {name}-gone-{number}\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        if number % 10 == 0 {
            // A thousand a second, since a machine that is busy with connections proves nothing.
            watch.go_on(Duration::from_millis(10));
        }
    }
    watch.go_on(A_WHILE);
    watch.ends(Counted::Throughout)?;
    Ok(())
}
