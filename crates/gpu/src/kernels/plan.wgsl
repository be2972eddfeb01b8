// The header of the plan's buffer: counts, and where each section starts.
const PLAN_TOKENS = 0u;
const PLAN_SEQS = 1u;
const PLAN_LOGIT_ROWS = 2u;
const PLAN_NUM_RUNS = 3u;
const PLAN_MAX_BLOCKS = 4u;
const PLAN_TOKEN_IDS = 5u;
const PLAN_POSITIONS = 6u;
const PLAN_SLOT_MAPPING = 7u;
const PLAN_SEQ_OF_ROW = 8u;
const PLAN_CU_SEQLENS_Q = 9u;
const PLAN_CONTEXT_LENS = 10u;
const PLAN_BLOCK_TABLES = 11u;
const PLAN_WANTED_ROWS = 12u;
const PLAN_RUNS = 13u;
const PLAN_PAGE_SIZE = 14u;
