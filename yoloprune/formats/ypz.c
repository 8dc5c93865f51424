/* Decoder of .ypz files (docs/format.md), in C99, without any library but C's own.
 *
 *     cc -O2 -o ypz ypz.c
 *     ./ypz NET.ypz STEM      writes STEM.cfg, STEM.weights and, where there are names, STEM.names
 *
 * As a library: compile with -DYPZ_NO_MAIN, declare `struct ypz` as below, and call
 *
 *     int ypz_unpack(struct ypz *it, const uint8_t *data, size_t size);
 *
 * Result 0: it->cfg, it->names (NULL where there are none) and it->weights hold the files, to be freed by the caller.
 * Another: it->reason says why the file at it->byte is refused, and nothing is left to free. Nothing else is allocated;
 * struct ypz takes less than 1 MiB and is best static. The processor may have either byte order.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    HEAD_BYTES = 52, STREAM_BYTES = 10,
    HEAD = 0, MASK = 1, GAPS = 2, CODES = 3, PARAMETERS = 4, WEIGHTS = 8, STREAMS = 12,
    ALL = 0, BY_MASK = 1, BY_GAPS = 2,
    PLAIN = 0, WEIGHT = 1, UNIFORM = 2, UNIFORM_BY_COLUMN = 3, CODEBOOK = 4,
    STORED = 255, ESCAPE = 255, DICTIONARY = 1 << 15, MOST_LC = 3, MOST_PB = 2,
    BLOCK = 1 << 20, MOST_TEXT = 1 << 24, MOST_FLOATS = 15 << 24, MOST_BYTES = 1 << 30
};

struct ypz_lengths {            /* LZMA's lengths of one kind */
    uint16_t choice[2], low[1 << MOST_PB][8], mid[1 << MOST_PB][8], high[256];
};

struct ypz_stream {
    const uint8_t *next, *end;  /* of its data */
    size_t start;               /* byte of the file where these begin */
    uint32_t left;              /* bytes still to give */
    int stored, lc, pb;
    /* LZMA */
    uint32_t range, code, position, rep[4], copy; /* copy: bytes of a match still to give */
    unsigned state;
    uint16_t is_match[12][1 << MOST_PB], is_rep[12], is_rep0[12], is_rep1[12], is_rep2[12];
    uint16_t is_long[12][1 << MOST_PB], slot[4][64], distance[128], align[16], literal[0x300 << MOST_LC];
    struct ypz_lengths match, rep_match;
    uint8_t dictionary[DICTIONARY];
};

struct ypz {
    uint8_t *cfg, *names, *weights;
    size_t cfg_size, names_size, weights_size;
    const char *reason;         /* NULL: all is well */
    size_t byte;
    struct ypz_stream streams[STREAMS];
};

int ypz_unpack(struct ypz *it, const uint8_t *data, size_t size);

/* ---- refusing; after the first reason all that is read is 0 ---- */

static void refuse(struct ypz *it, size_t byte, const char *reason)
{
    if (it->reason == NULL) {
        it->reason = reason;
        it->byte = byte;
    }
}

static uint32_t number(const uint8_t *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* ---- LZMA: a range coder whose bits have adaptive probabilities ---- */

static void fill(uint16_t *probabilities, size_t bytes)
{
    for (size_t i = 0; i < bytes / sizeof *probabilities; i++)
        probabilities[i] = 1 << 10;
}

static uint8_t input(struct ypz *it, struct ypz_stream *s)
{
    if (s->next < s->end)
        return *s->next++;
    refuse(it, s->start, "a stream ends within its data");
    return 0;
}

static void normalize(struct ypz *it, struct ypz_stream *s)
{
    if (s->range < (uint32_t)1 << 24) {
        s->range <<= 8;
        s->code = s->code << 8 | input(it, s);
    }
}

static unsigned bit(struct ypz *it, struct ypz_stream *s, uint16_t *probability)
{
    normalize(it, s);
    uint32_t bound = (s->range >> 11) * *probability;
    if (s->code < bound) {
        s->range = bound;
        *probability = (uint16_t)(*probability + ((2048 - *probability) >> 5));
        return 0;
    }
    s->range -= bound;
    s->code -= bound;
    *probability = (uint16_t)(*probability - (*probability >> 5));
    return 1;
}

static unsigned bits(struct ypz *it, struct ypz_stream *s, uint16_t *tree, int count)
{
    unsigned node = 1;
    for (int i = 0; i < count; i++)
        node = node << 1 | bit(it, s, &tree[node]);
    return node - (1u << count);
}

static unsigned bits_from_lowest(struct ypz *it, struct ypz_stream *s, uint16_t *tree, int count)
{
    unsigned node = 1, value = 0;
    for (int i = 0; i < count; i++) {
        unsigned found = bit(it, s, &tree[node]);
        node = node << 1 | found;
        value |= found << i;
    }
    return value;
}

static uint32_t even_bits(struct ypz *it, struct ypz_stream *s, int count)
{
    uint32_t value = 0;
    while (count-- > 0) {
        normalize(it, s);
        s->range >>= 1;
        uint32_t found = s->code >= s->range;
        if (found)
            s->code -= s->range;
        value = value << 1 | found;
    }
    return value;
}

static uint32_t length(struct ypz *it, struct ypz_stream *s, struct ypz_lengths *lengths, unsigned place)
{
    if (!bit(it, s, &lengths->choice[0]))
        return 2 + bits(it, s, lengths->low[place], 3);
    if (!bit(it, s, &lengths->choice[1]))
        return 10 + bits(it, s, lengths->mid[place], 3);
    return 18 + bits(it, s, lengths->high, 8);
}

static uint32_t distance(struct ypz *it, struct ypz_stream *s, uint32_t copied)
{
    uint32_t slot = bits(it, s, s->slot[copied < 6 ? copied - 2 : 3], 6);
    if (slot < 4)
        return slot;
    int more = (int)(slot >> 1) - 1;
    uint32_t found = (2 | (slot & 1)) << more;
    if (slot < 14)
        return found + bits_from_lowest(it, s, s->distance + (found - slot), more);
    found += even_bits(it, s, more - 4) << 4;
    return found + bits_from_lowest(it, s, s->align, 4);
}

static uint8_t back(const struct ypz_stream *s, uint32_t by)
{
    return s->dictionary[(s->position - 1 - by) % DICTIONARY];
}

static uint8_t put(struct ypz_stream *s, uint8_t byte)
{
    s->dictionary[s->position++ % DICTIONARY] = byte;
    return byte;
}

static uint8_t literal(struct ypz *it, struct ypz_stream *s)
{
    unsigned before = s->position ? back(s, 0) : 0, node = 1;
    uint16_t *tree = s->literal + 0x300 * (before >> (8 - s->lc));
    if (s->state >= 7) {        /* behind a match: likely another byte than the one that would continue it */
        unsigned expected = back(s, s->rep[0]);
        while (node < 0x100) {
            unsigned likely = expected >> 7 & 1, found = bit(it, s, &tree[((1 + likely) << 8) + node]);
            expected <<= 1;
            node = node << 1 | found;
            if (found != likely)
                break;
        }
    }
    while (node < 0x100)
        node = node << 1 | bit(it, s, &tree[node]);
    s->state = s->state < 4 ? 0 : s->state < 10 ? s->state - 3 : s->state - 6;
    return put(s, (uint8_t)node);
}

/* Begins a match, or at `ended` takes the end marker. */
static void match(struct ypz *it, struct ypz_stream *s, unsigned place, int ended)
{
    if (bit(it, s, &s->is_rep[s->state])) {
        if (!bit(it, s, &s->is_rep0[s->state])) {
            if (!bit(it, s, &s->is_long[s->state][place])) {
                s->state = s->state < 7 ? 9 : 11;
                s->copy = 1;
                return;
            }
        } else {
            uint32_t chosen = s->rep[1];
            if (bit(it, s, &s->is_rep1[s->state])) {
                chosen = s->rep[2];
                if (bit(it, s, &s->is_rep2[s->state])) {
                    chosen = s->rep[3];
                    s->rep[3] = s->rep[2];
                }
                s->rep[2] = s->rep[1];
            }
            s->rep[1] = s->rep[0];
            s->rep[0] = chosen;
        }
        s->copy = length(it, s, &s->rep_match, place);
        s->state = s->state < 7 ? 8 : 11;
        return;
    }
    s->rep[3] = s->rep[2];
    s->rep[2] = s->rep[1];
    s->rep[1] = s->rep[0];
    s->copy = length(it, s, &s->match, place);
    s->state = s->state < 7 ? 7 : 10;
    s->rep[0] = distance(it, s, s->copy);
    if (s->rep[0] == UINT32_MAX && !ended)
        refuse(it, s->start, "a stream holds fewer bytes than declared");
}

/* ---- streams: stored or LZMA ---- */

static void open_stream(struct ypz *it, struct ypz_stream *s, int coding)
{
    s->stored = coding == STORED;
    if (s->stored) {
        if ((size_t)(s->end - s->next) != s->left)
            refuse(it, s->start, "a stored stream has another size than declared");
        return;
    }
    s->lc = coding % 9;
    s->pb = coding / 45;
    if (s->lc > MOST_LC || coding / 9 % 5 != 0 || s->pb > MOST_PB) {
        refuse(it, s->start, "a stream has settings of LZMA out of range");
        return;
    }
    fill(&s->is_match[0][0], sizeof s->is_match);
    fill(s->is_rep, sizeof s->is_rep);
    fill(s->is_rep0, sizeof s->is_rep0);
    fill(s->is_rep1, sizeof s->is_rep1);
    fill(s->is_rep2, sizeof s->is_rep2);
    fill(&s->is_long[0][0], sizeof s->is_long);
    fill(&s->slot[0][0], sizeof s->slot);
    fill(s->distance, sizeof s->distance);
    fill(s->align, sizeof s->align);
    fill(s->literal, sizeof s->literal);
    fill((uint16_t *)&s->match, sizeof s->match);
    fill((uint16_t *)&s->rep_match, sizeof s->rep_match);
    s->range = UINT32_MAX;
    if (input(it, s) != 0)
        refuse(it, s->start, "damaged LZMA data");
    for (int i = 0; i < 4; i++)
        s->code = s->code << 8 | input(it, s);
}

static uint8_t next(struct ypz *it, struct ypz_stream *s)
{
    if (it->reason != NULL)
        return 0;
    if (s->left == 0) {
        refuse(it, s->start, "a stream has fewer bytes than the arrays take");
        return 0;
    }
    s->left--;
    if (s->stored)
        return *s->next++;
    if (s->copy == 0) {
        unsigned place = s->position & ((1u << s->pb) - 1);
        if (!bit(it, s, &s->is_match[s->state][place]))
            return literal(it, s);
        match(it, s, place, 0);
        if (s->rep[0] >= s->position || s->rep[0] >= DICTIONARY) {
            refuse(it, s->start, "damaged LZMA data");
            return 0;
        }
    }
    s->copy--;
    return put(s, back(s, s->rep[0]));
}

static void close_stream(struct ypz *it, struct ypz_stream *s)
{
    if (it->reason != NULL)
        return;
    if (s->left != 0 || s->copy != 0) {
        refuse(it, s->start, "a stream has more bytes than the arrays take");
        return;
    }
    if (!s->stored) {
        unsigned place = s->position & ((1u << s->pb) - 1);
        s->rep[0] = 0;
        if (!bit(it, s, &s->is_match[s->state][place])) {
            refuse(it, s->start, "a stream holds more bytes than declared");
            return;
        }
        match(it, s, place, 1);
        normalize(it, s);
        if (s->rep[0] != UINT32_MAX || s->code != 0)
            refuse(it, s->start, "a stream does not end with LZMA's end marker");
    }
    if (s->next != s->end)
        refuse(it, s->start, "a stream has bytes behind its end");
}

static uint32_t next_number(struct ypz *it, struct ypz_stream *s)
{
    uint8_t bytes[4];
    for (int i = 0; i < 4; i++)
        bytes[i] = next(it, s);
    return number(bytes);
}

/* ---- arrays ---- */

struct entry {
    unsigned form, where, bits;
    uint32_t size, filters;
};

/* Words of the output are little endian, in their place. */
static void set(uint8_t *floats, uint32_t at, uint32_t word)
{
    for (int i = 0; i < 4; i++)
        floats[4 * (size_t)at + i] = (uint8_t)(word >> 8 * i);
}

static uint32_t next_float(struct ypz *it, struct ypz_stream *planes)
{
    uint32_t turned = 0;
    for (int i = 0; i < 4; i++)
        turned |= (uint32_t)next(it, &planes[i]) << 8 * i;
    return turned >> 1 | turned << 31;
}

static uint32_t scaled(uint32_t scale, int code)
{
    float value;
    memcpy(&value, &scale, sizeof value);
    value = value * (float)code;
    memcpy(&scale, &value, sizeof scale);
    return scale;
}

static uint32_t value_of(const struct entry *e, const uint8_t *floats, uint32_t at, const uint32_t *book, unsigned code)
{
    if (e->form == CODEBOOK)
        return book[code];
    uint32_t filter = e->form == UNIFORM ? at / (e->size / e->filters) : at % e->filters;
    int q = (int)code - (code >> (e->bits - 1) ? 1 << e->bits : 0);
    return scaled(number(floats + 4 * (size_t)(e->size - e->filters + filter)), q);
}

/* Scales stand where the array's last values will: filter n's is read for the last time before it is overwritten. */
static void read_table(struct ypz *it, const struct entry *e, uint8_t *floats, uint32_t *book)
{
    struct ypz_stream *planes = &it->streams[PARAMETERS];
    if (e->form == CODEBOOK) {
        book[0] = 0;
        for (uint32_t i = 1; i < (uint32_t)1 << e->bits; i++)
            book[i] = next_float(it, planes);
        return;
    }
    for (uint32_t i = 0; i < e->filters && it->reason == NULL; i++) {
        uint32_t scale = next_float(it, planes);
        if (scale >= 0x7F800000 || (scale != 0 && scale < 0x00800000))
            refuse(it, planes[3].start, "expected scales of 0, or at least 2^-126, found others");
        set(floats, e->size - e->filters + i, scale);
    }
}

static uint32_t next_gap(struct ypz *it)
{
    uint32_t gap = 0;
    unsigned byte;
    do {
        byte = next(it, &it->streams[GAPS]);
        gap += byte;
    } while (byte == ESCAPE && gap <= BLOCK);
    return gap;
}

static void read_array(struct ypz *it, const struct entry *e, uint8_t *floats)
{
    uint32_t book[256], left = 0;
    unsigned mask = 0, codes = 0, held = 0, each = e->bits ? 8 / e->bits : 0;
    struct ypz_stream *planes = &it->streams[e->form == WEIGHT ? WEIGHTS : PARAMETERS];
    if (e->bits)
        read_table(it, e, floats, book);
    for (uint32_t at = 0; at < e->size && it->reason == NULL; at++) {
        uint32_t place = at % BLOCK;
        int there = 1;
        if (place == 0) {
            held = 0;
            left = e->where == BY_GAPS ? next_gap(it) : 0;
        }
        if (e->where == BY_MASK) {
            if (place % 8 == 0)
                mask = next(it, &it->streams[MASK]);
            there = mask >> (7 - place % 8) & 1;
        } else if (e->where == BY_GAPS) {
            there = left == 0;
            left = there ? next_gap(it) : left - 1;
        }
        uint32_t word = 0;
        if (there && e->bits) {
            if (held == 0) {
                codes = next(it, &it->streams[CODES]);
                held = each;
            }
            held--;
            word = value_of(e, floats, at, book, codes >> held * e->bits & ((1u << e->bits) - 1));
        } else if (there) {
            word = next_float(it, planes);
        }
        set(floats, at, word);
        if (left != 0 && (place == BLOCK - 1 || at == e->size - 1))
            refuse(it, it->streams[GAPS].start, "gaps don't end with a block");
    }
}

/* ---- the file ---- */

static uint32_t turn(uint32_t word, int by)
{
    return word >> by | word << (32 - by);
}

static void sha256_block(uint32_t *state, const uint8_t *block)
{
    static const uint32_t constants[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
    };
    uint32_t words[64], s[8];
    for (int i = 0; i < 16; i++)
        words[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8
                   | block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = words[i - 15], b = words[i - 2];
        words[i] = words[i - 16] + (turn(a, 7) ^ turn(a, 18) ^ a >> 3) + words[i - 7]
                   + (turn(b, 17) ^ turn(b, 19) ^ b >> 10);
    }
    memcpy(s, state, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t one = s[7] + (turn(s[4], 6) ^ turn(s[4], 11) ^ turn(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6]))
                       + constants[i] + words[i];
        uint32_t two = (turn(s[0], 2) ^ turn(s[0], 13) ^ turn(s[0], 22))
                       + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += one;
        s[0] = one + two;
    }
    for (int i = 0; i < 8; i++)
        state[i] += s[i];
}

static int sha256_is(const uint8_t *data, size_t size, const uint8_t *expected)
{
    uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint8_t last[128] = {0};
    size_t rest = size % 64, padded = rest < 56 ? 64 : 128;
    for (size_t at = 0; at + 64 <= size; at += 64)
        sha256_block(state, data + at);
    if (rest)
        memcpy(last, data + size - rest, rest);
    last[rest] = 0x80;
    for (int i = 0; i < 8; i++)
        last[padded - 1 - i] = (uint8_t)((uint64_t)size * 8 >> 8 * i);
    for (size_t at = 0; at < padded; at += 64)
        sha256_block(state, last + at);
    for (int i = 0; i < 32; i++)
        if (expected[i] != (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4))))
            return 0;
    return 1;
}

static void check_head(struct ypz *it, const uint8_t *data, size_t size)
{
    if (size < HEAD_BYTES)
        refuse(it, size, "expected a head of 52 bytes, found the end");
    else if (memcmp(data, "\x89YPZ\r\n\x1a\n", 8) != 0)
        refuse(it, 0, "expected the magic of a .ypz file, found another");
    else if (number(data + 8) != 1)
        refuse(it, 8, "expected version 1, found another");
    else if (size > MOST_BYTES || number(data + 12) != size || number(data + 16) != 0)
        refuse(it, 12, "the file has another size than it says");
    else if (!sha256_is(data + HEAD_BYTES, size - HEAD_BYTES, data + 20))
        refuse(it, 20, "what follows has another SHA-256: the file is damaged");
}

static void open_streams(struct ypz *it, const uint8_t *data, size_t size)
{
    int last = -1;
    for (int i = 0; i < STREAMS; i++)
        it->streams[i].start = size, it->streams[i].stored = 1, it->streams[i].next = it->streams[i].end = data + size;
    for (size_t at = HEAD_BYTES; at < size && it->reason == NULL;) {
        if (size - at < STREAM_BYTES) {
            refuse(it, at, "expected 10 bytes before a stream, found the end");
            return;
        }
        int which = data[at];
        uint32_t packed = number(data + at + 6);
        if (which <= last || which >= STREAMS) {
            refuse(it, at, "streams are out of order, or unknown");
            return;
        }
        if (packed > size - at - STREAM_BYTES) {
            refuse(it, at, "a stream ends behind the file");
            return;
        }
        struct ypz_stream *s = &it->streams[which];
        s->start = at + STREAM_BYTES;
        s->next = data + s->start;
        s->end = s->next + packed;
        s->left = number(data + at + 2);
        open_stream(it, s, data[at + 1]);
        at = s->start + packed;
        last = which;
    }
}

/* Memory for so many bytes, or NULL with a reason; bytes 0 is one byte. */
static uint8_t *room(struct ypz *it, size_t bytes)
{
    uint8_t *found = it->reason == NULL ? malloc(bytes ? bytes : 1) : NULL;
    if (found == NULL)
        refuse(it, 0, "no memory");
    return found;
}

static uint8_t *read_bytes(struct ypz *it, uint32_t count, uint32_t most)
{
    struct ypz_stream *head = &it->streams[HEAD];
    if (count > most)
        refuse(it, head->start, "a declared size is too large");
    uint8_t *found = room(it, count);
    for (uint32_t i = 0; found != NULL && i < count && it->reason == NULL; i++)
        found[i] = next(it, head);
    return found;
}

static struct entry read_entry(struct ypz *it, uint32_t left)
{
    struct ypz_stream *head = &it->streams[HEAD];
    struct entry e;
    e.form = next(it, head);
    e.where = next(it, head);
    e.bits = next(it, head);
    e.size = next_number(it, head);
    e.filters = next_number(it, head);
    int coded = e.form >= UNIFORM, scales = e.form == UNIFORM || e.form == UNIFORM_BY_COLUMN;
    if (e.form > CODEBOOK || e.where > BY_GAPS)
        refuse(it, head->start, "expected form 0 to 4 and places 0 to 2, found others");
    else if (coded ? e.bits < 2 || e.bits > 8 : e.bits != 0)
        refuse(it, head->start, "expected 2 to 8 bits for codes and 0 for floats, found others");
    else if (e.size > left)
        refuse(it, head->start, "arrays have more floats than declared");
    else if (scales ? e.filters == 0 || e.size == 0 || e.size % e.filters != 0 : e.filters != 0)
        refuse(it, head->start, "filters don't divide an array");
    return e;
}

static void read_files(struct ypz *it)
{
    struct ypz_stream *head = &it->streams[HEAD];
    it->cfg_size = next_number(it, head);
    it->cfg = read_bytes(it, (uint32_t)it->cfg_size, MOST_TEXT);
    if (next(it, head)) {
        it->names_size = next_number(it, head);
        it->names = read_bytes(it, (uint32_t)it->names_size, MOST_TEXT);
    }
    uint8_t header[20];
    uint32_t size = next(it, head), at = 0;
    if (size != 16 && size != 20)
        refuse(it, head->start, "expected a .weights header of 16 or 20 bytes, found another");
    for (uint32_t i = 0; i < size && it->reason == NULL; i++)
        header[i] = next(it, head);
    uint32_t floats = next_number(it, head), arrays = next_number(it, head);
    if (floats > MOST_FLOATS || arrays > MOST_TEXT / 11)
        refuse(it, head->start, "a declared size is too large");
    it->weights = room(it, size + 4 * (size_t)floats);
    if (it->reason != NULL)
        return;
    it->weights_size = size + 4 * (size_t)floats;
    memcpy(it->weights, header, size);
    for (; arrays > 0 && it->reason == NULL; arrays--) {
        struct entry e = read_entry(it, floats - at);
        if (it->reason == NULL)
            read_array(it, &e, it->weights + size + 4 * (size_t)at);
        at += e.size;
    }
    if (it->reason == NULL && at != floats)
        refuse(it, head->start, "arrays have fewer floats than declared");
}

int ypz_unpack(struct ypz *it, const uint8_t *data, size_t size)
{
    memset(it, 0, sizeof *it);
    check_head(it, data, size);
    if (it->reason == NULL)
        open_streams(it, data, size);
    if (it->reason == NULL)
        read_files(it);
    for (int i = 0; i < STREAMS; i++)
        close_stream(it, &it->streams[i]);
    if (it->reason == NULL)
        return 0;
    free(it->cfg);
    free(it->names);
    free(it->weights);
    it->cfg = it->names = it->weights = NULL;
    return 1;
}

#ifndef YPZ_NO_MAIN

static int write_file(const char *stem, const char *suffix, const uint8_t *data, size_t size)
{
    char path[4096];
    int length = snprintf(path, sizeof path, "%s%s", stem, suffix);
    FILE *file = length < 0 || (size_t)length >= sizeof path ? NULL : fopen(path, "wb");
    int failed = file == NULL || fwrite(data, 1, size, file) != size;
    if (file != NULL && fclose(file) != 0)
        failed = 1;
    if (failed)
        fprintf(stderr, "%s%s: cannot be written\n", stem, suffix);
    return failed;
}

static uint8_t *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = NULL;
    long length = -1;
    if (file != NULL && fseek(file, 0, SEEK_END) == 0)
        length = ftell(file);
    if (length >= 0 && length <= MOST_BYTES && fseek(file, 0, SEEK_SET) == 0) {
        *size = (size_t)length;
        data = malloc(*size ? *size : 1);
        if (data != NULL && fread(data, 1, *size, file) != *size) {
            free(data);
            data = NULL;
        }
    }
    if (file != NULL)
        fclose(file);
    return data;
}

int main(int count, char **words)
{
    static struct ypz it;
    size_t size = 0;
    if (count != 3) {
        fprintf(stderr, "use: ypz NET.ypz STEM\n");
        return 2;
    }
    uint8_t *data = read_file(words[1], &size);
    if (data == NULL) {
        fprintf(stderr, "%s: cannot be read\n", words[1]);
        return 2;
    }
    int failed = ypz_unpack(&it, data, size);
    free(data);
    if (failed) {
        fprintf(stderr, "%s: byte %lu: %s\n", words[1], (unsigned long)it.byte, it.reason);
        return 2;
    }
    failed = write_file(words[2], ".cfg", it.cfg, it.cfg_size)
             | write_file(words[2], ".weights", it.weights, it.weights_size)
             | (it.names != NULL && write_file(words[2], ".names", it.names, it.names_size));
    free(it.cfg);
    free(it.names);
    free(it.weights);
    return failed ? 2 : 0;
}

#endif
