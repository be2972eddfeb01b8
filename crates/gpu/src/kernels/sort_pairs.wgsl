// The pairs of tokens and experts sorted by expert, an expert's in order, and cut into groups of up to imm.group pairs of one
// expert. One workgroup does it all; a lane takes every 256th expert.
@group(0) @binding(0) var<storage, read> ids: array<u32>;           // [pairs], the expert of each
@group(0) @binding(1) var<storage, read_write> order: array<u32>;   // [pairs]
// Number of groups; then of each its expert, its first place in the order, and its pairs.
@group(0) @binding(2) var<storage, read_write> groups: array<u32>;

struct Immediates {
    pairs: u32,
    experts: u32,
    group: u32,
}
var<immediate> imm: Immediates;

var<workgroup> counts: array<u32, ${MAX_EXPERTS}>;
// Of each expert, its first place and its first group.
var<workgroup> places: array<u32, ${MAX_EXPERTS}>;
var<workgroup> firsts: array<u32, ${MAX_EXPERTS}>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane: u32) {
    for (var expert = lane; expert < imm.experts; expert += 256u) {
        var count = 0u;
        for (var pair = 0u; pair < imm.pairs; pair++) {
            count += select(0u, 1u, ids[pair] == expert);
        }
        counts[expert] = count;
    }
    workgroupBarrier();
    if lane == 0u {
        var place = 0u;
        var first = 0u;
        for (var expert = 0u; expert < imm.experts; expert++) {
            places[expert] = place;
            firsts[expert] = first;
            place += counts[expert];
            first += (counts[expert] + imm.group - 1u) / imm.group;
        }
        groups[0] = first;
    }
    workgroupBarrier();
    for (var expert = lane; expert < imm.experts; expert += 256u) {
        var place = places[expert];
        let end = place + counts[expert];
        var word = 1u + 3u * firsts[expert];
        for (var first = place; first < end; first += imm.group) {
            groups[word] = expert;
            groups[word + 1u] = first;
            groups[word + 2u] = min(imm.group, end - first);
            word += 3u;
        }
        if place < end {
            for (var pair = 0u; pair < imm.pairs; pair++) {
                if ids[pair] == expert {
                    order[place] = pair;
                    place++;
                }
            }
        }
    }
}
