#include "abi/packed_model.h"

#include <cmath>
#include <cstddef>
#include <cstring>

namespace fermt {
namespace {

static_assert(sizeof(PackedHeader) <= kHeaderBytes, "the header fits its place");

constexpr char kMagic[8] = {'F', 'E', 'R', 'M', 'T', 'P', 'K', 0};
constexpr int64_t kMaxSize = 8192;  // of a size in the header: products of a few of them cannot overflow

bool in_range(int64_t value, int64_t min, int64_t max) { return value >= min && value <= max; }

bool is_multiple(int64_t value, int64_t of) { return in_range(value, of, kMaxSize) && value % of == 0; }

bool is_valid(const PackedHeader& h) {
  if (h.dtype != FERMT_FLOAT32 && h.dtype != FERMT_BFLOAT16 && h.dtype != FERMT_INT8) return false;
  if (!in_range(h.head, FERMT_CENTER_HEAD, FERMT_CORNER_HEAD) || !in_range(h.reweight, 0, 1)) return false;
  if (!is_multiple(h.dim, 16) || !is_multiple(h.hidden, 16) || !in_range(h.depth, 1, kMaxDepth)) return false;
  if (!in_range(h.heads, 1, h.dim) || h.dim % h.heads != 0) return false;
  if (!in_range(h.patch, 1, 64) || !is_multiple(h.template_size, h.patch) || !is_multiple(h.search_size, h.patch))
    return false;
  if (h.template_size > 2048 || h.search_size > 2048) return false;
  if (!in_range(h.dau, 0, 1)) return false;
  if (h.dau && (!in_range(h.dau_hidden, 1, 64) || !in_range(h.kernel, 1, 31) || !in_range(h.dilated_kernel, 1, 31) ||
                h.kernel % 2 == 0 || h.dilated_kernel % 2 == 0))
    return false;
  const int64_t max_channels = h.dtype == FERMT_INT8 ? kMaxByteChannels : kMaxSize;
  if (h.dim > max_channels) return false;
  for (int64_t width : h.widths)
    if (!is_multiple(width, 16) || width > max_channels) return false;
  for (int64_t layer = 0; layer < h.depth; ++layer)
    if (!in_range(h.patterns[layer], 0, 15)) return false;
  return std::isfinite(h.eps) && h.eps > 0 && std::isfinite(h.scale) && std::isfinite(h.template_factor) &&
         h.template_factor > 0 && std::isfinite(h.search_factor) && h.search_factor > 0;
}

// Assigns sections one after the other.
struct SectionReader {
  const char* base;
  int64_t pack_factor;
  int64_t used = kHeaderBytes;

  const char* next(int64_t bytes) {
    const char* section = base + used;
    used += (bytes + 63) / 64 * 64;
    return section;
  }
  const float* floats(int64_t count) { return reinterpret_cast<const float*>(next(count * 4)); }
  PackedMatrix matrix(int64_t outputs, int64_t inputs, int64_t panel_sets = 1) {
    const int64_t packed_k = (inputs + pack_factor - 1) / pack_factor;
    const float* bias = floats(outputs);
    const float* scales = pack_factor == 4 ? floats(outputs) : nullptr;
    const float* sums = pack_factor == 4 ? floats(outputs) : nullptr;
    const char* panels = base + used;
    for (int64_t i = 0; i < panel_sets; ++i) next(outputs * packed_k * 4);
    return {bias, scales, sums, panels, outputs, inputs};
  }
};

void read_head(SectionReader& reader, PackedModel* m) {
  const PackedHeader& h = *m->header;
  int64_t inputs = h.dim;
  if (h.dtype == FERMT_INT8) m->head_input = reader.floats(2);
  for (int layer = 0; layer < kHeadLayers; ++layer) {
    const int64_t outputs = h.widths[layer] * (layer == 0 ? m->branches : 1);
    for (int64_t group = 0; group < m->head_groups(layer); ++group)
      m->head[layer][group] =
          h.dtype == FERMT_FLOAT32 ? reader.matrix(outputs, inputs, 16) : reader.matrix(outputs, 9 * inputs);
    inputs = h.widths[layer];
  }
  for (int64_t branch = 0; branch < m->branches; ++branch) {
    const int64_t outputs = PackedModel::branch_outputs(h.head, branch);
    m->last_weight[branch] = reader.floats(outputs * inputs);
    m->last_bias[branch] = reader.floats(outputs);
  }
}

// Finds the layers whose template tokens anything depends on, from the last layer back.
void find_dependencies(PackedModel* m) {
  const int64_t depth = m->header->depth;
  m->first_dynamic_layer = 0;
  while (m->first_dynamic_layer < depth && !m->sees(static_cast<int>(m->first_dynamic_layer), kTemplateSeesSearch))
    ++m->first_dynamic_layer;
  m->template_input[depth] = m->header->reweight != 0;
  for (int layer = static_cast<int>(depth) - 1; layer >= 0; --layer)
    m->template_input[layer] = m->template_input[layer + 1] || m->sees(layer, kSearchSeesTemplate);
}

// CRC-32 as in zlib, continued from `crc`.
uint32_t crc32(uint32_t crc, const unsigned char* data, int64_t bytes) {
  uint32_t table[256];
  for (uint32_t i = 0; i < 256; ++i) {
    table[i] = i;
    for (int bit = 0; bit < 8; ++bit) table[i] = table[i] & 1 ? (table[i] >> 1) ^ 0xedb88320u : table[i] >> 1;
  }
  crc = ~crc;
  for (int64_t i = 0; i < bytes; ++i) crc = table[(crc ^ data[i]) & 0xff] ^ (crc >> 8);
  return ~crc;
}

}  // namespace

int64_t lay_out_sections(const PackedHeader& h, PackedModel* m) {
  m->header = &h;
  m->grid = h.search_size / h.patch;
  m->num_template = (h.template_size / h.patch) * (h.template_size / h.patch);
  m->num_search = m->grid * m->grid;
  m->head_dim = h.dim / h.heads;
  m->branches = h.head == FERMT_CENTER_HEAD ? 3 : 2;
  m->pack_factor = h.dtype == FERMT_INT8 ? 4 : h.dtype == FERMT_BFLOAT16 ? 2 : 1;
  SectionReader reader{reinterpret_cast<const char*>(&h), m->pack_factor};
  m->image_norm = reader.floats(6);
  if (h.dau) {
    const int64_t sizes[FERMT_UNIT_WEIGHTS] = {9,
                                               3,
                                               3 * h.kernel * h.kernel,
                                               3,
                                               3 * h.dilated_kernel * h.dilated_kernel,
                                               3,
                                               9,
                                               3,
                                               h.dau_hidden * 3,
                                               3 * h.dau_hidden,
                                               9,
                                               3};
    for (int i = 0; i < FERMT_UNIT_WEIGHTS; ++i) m->dau[i] = reader.floats(sizes[i]);
  }
  m->pos_template = reader.floats(m->num_template * h.dim);
  m->pos_search = reader.floats(m->num_search * h.dim);
  m->patch_embed = reader.matrix(h.dim, 3 * h.patch * h.patch);
  for (int64_t i = 0; i < h.depth; ++i) {
    PackedLayer& layer = m->layers[i];
    layer.q = reader.matrix(h.dim, h.dim);
    layer.kv = reader.matrix(2 * h.dim, h.dim);
    layer.proj = reader.matrix(h.dim, h.dim);
    layer.fc1 = reader.matrix(h.hidden, h.dim);
    layer.fc2 = reader.matrix(h.dim, h.hidden);
  }
  m->norm_weight = reader.floats(h.dim);
  m->norm_bias = reader.floats(h.dim);
  read_head(reader, m);
  return reader.used;
}

fermt_status open_model(const void* data, int64_t bytes, PackedModel* m) {
  if (!data) return FERMT_NULL_POINTER;
  if (reinterpret_cast<uintptr_t>(data) % 64 != 0) return FERMT_BAD_ALIGNMENT;
  if (bytes < kHeaderBytes) return FERMT_BAD_MODEL;
  const PackedHeader& h = *static_cast<const PackedHeader*>(data);
  if (std::memcmp(h.magic, kMagic, sizeof kMagic) != 0) return FERMT_BAD_MODEL;
  if (h.version != FERMT_MODEL_VERSION) return FERMT_BAD_MODEL_VERSION;
  if (h.total_bytes != bytes || !is_valid(h) || lay_out_sections(h, m) != bytes) return FERMT_BAD_MODEL;
  find_dependencies(m);
  return FERMT_OK;
}

fermt_status verify_model(const PackedModel& m) {
  PackedHeader header = *m.header;
  header.checksum = 0;
  const unsigned char* data = reinterpret_cast<const unsigned char*>(m.header);
  unsigned char first[kHeaderBytes];
  std::memcpy(first, data, sizeof first);
  std::memcpy(first, &header, sizeof header);
  const uint32_t body = crc32(0, data + kHeaderBytes, m.header->total_bytes - kHeaderBytes);
  return static_cast<int64_t>(crc32(body, first, kHeaderBytes)) == m.header->checksum ? FERMT_OK
                                                                                      : FERMT_BAD_MODEL_CHECKSUM;
}

int64_t PackedModel::head_groups(int layer) const { return layer == 0 ? 1 : branches; }

int64_t PackedModel::map_channels() const { return header->head == FERMT_CENTER_HEAD ? 5 : 2; }

int64_t PackedModel::branch_outputs(int64_t head, int64_t branch) {
  return head == FERMT_CENTER_HEAD && branch > 0 ? 2 : 1;
}

bool PackedModel::sees(int layer, PatternBit bit) const { return header->patterns[layer] & bit; }

bool PackedModel::template_updated(int layer) const { return template_input[layer + 1]; }

bool PackedModel::template_queries(int layer) const {
  return template_updated(layer) && (sees(layer, kTemplateSeesTemplate) || sees(layer, kTemplateSeesSearch));
}

bool PackedModel::template_keys(int layer) const {
  return sees(layer, kSearchSeesTemplate) || (template_updated(layer) && sees(layer, kTemplateSeesTemplate));
}

bool PackedModel::search_keys(int layer) const {
  return sees(layer, kSearchSeesSearch) || (template_updated(layer) && sees(layer, kTemplateSeesSearch));
}

}  // namespace fermt
