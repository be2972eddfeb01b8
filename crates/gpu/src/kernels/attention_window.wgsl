//@if WINDOW
// The first position that a row at `position` sees.
fn first_seen(position: u32) -> u32 {
    return position + 1u - min(position + 1u, ${WINDOW}u);
}
//@end
