use super::{OK, Stop, options::Drain, own};
use crate::{
    socket::Request,
    terminal::{self, GOOD, NAME, WARNING},
};

pub(super) async fn drain(options: Drain) -> Result<u8, Stop> {
    let result = own::ask(&options.node, Request::Drain { node: options.name, on: !options.undo }).await?;
    if options.node.json {
        terminal::print(&format!("{result}\n"));
        return Ok(OK);
    }
    let node = result["node"].as_str().unwrap_or_default();
    if options.undo {
        terminal::print(&format!("{NAME}{node}{NAME:#} takes calls again\n"));
        return Ok(OK);
    }
    terminal::print(&format!("{GOOD}drained{GOOD:#} {NAME}{node}{NAME:#}: other nodes send it no calls\n"));
    let kept: Vec<_> = result["kept"].as_array().into_iter().flatten().filter_map(|app| app.as_str()).collect();
    if !kept.is_empty() {
        let kept = kept.join(", ");
        terminal::print(&format!("{WARNING}warning:{WARNING:#} no other node serves {kept}\n"));
    }
    Ok(OK)
}
