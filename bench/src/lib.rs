//! What a request costs: Weir, plain Envoy and peers, measured in turns on one machine.
//!
//! A *system* is a gateway with all that it needs, each in front of the same [`upstream`]. Systems run
//! side by side and take turns, A B C A B C …; one *round* is a turn of each. What is compared is the
//! processor time of a request, as a multiple of plain Envoy's in the same round, so that what the
//! machine does besides weighs on both sides.
//!
//! - [`scenario`] is what every request is checked against;
//! - [`system`], [`envoy`] and [`peer`] start what is measured;
//! - [`crowd`] asks, [`upstream`] answers: both in this program, which is not counted;
//! - [`cpu`] and [`store`] read what was used, [`turn`] puts it together for one turn;
//! - [`rounds`] lets them take turns, [`series`] says what many rounds say together;
//! - [`script`] is the check without a gateway;
//! - [`report`] holds what was found, [`table`] and [`plot`] show it, [`document`] writes it;
//! - [`quick`] is `make bench-quick`, [`full`] is `make bench`;
//! - [`scale`] goes on from what a script call costs to what fleets need: `make scale`.

pub mod cpu;
pub mod crowd;
pub mod document;
pub mod envoy;
pub mod full;
pub mod machine;
pub mod peer;
pub mod plot;
pub mod quick;
pub mod report;
pub mod rounds;
pub mod scale;
pub mod scenario;
pub mod script;
pub mod series;
pub mod store;
pub mod system;
pub mod table;
pub mod turn;
pub mod upstream;
