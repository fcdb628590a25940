/* Rewiring: one walk through a pattern, in which some connections leave and others come in. */
#include "../include/sparsecirc.h"

int64_t sc_exchange(int64_t rows, int64_t cols, const int32_t *ptr, const int32_t *index, const uint8_t *leaves,
                    const int64_t *grow, int64_t n, int32_t *new_ptr, int32_t *new_index, int32_t *source) {
  int64_t g = 0;
  int32_t at = 0;
  new_ptr[0] = 0;
  for (int64_t r = 0; r < rows; r++) {
    const int64_t first = r * cols;
    int32_t k = ptr[r];
    const int32_t end = ptr[r + 1];
    while (k < end || (g < n && grow[g] < first + cols)) {
      const int grows = g < n && grow[g] < first + cols && (k == end || grow[g] <= first + index[k]);
      if (grows) {
        if (grow[g] < first || (k < end && grow[g] == first + index[k]) || (g && grow[g] == grow[g - 1])) return g;
        new_index[at] = (int32_t)(grow[g++] - first);
        source[at++] = -1;
      } else {
        if (!leaves[k]) {
          new_index[at] = index[k];
          source[at++] = k;
        }
        k++;
      }
    }
    new_ptr[r + 1] = at;
  }
  return g < n ? g : -1;
}
