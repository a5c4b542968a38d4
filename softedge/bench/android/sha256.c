/* SHA-256 of a file (FIPS 180-4): the phone proves that the file it runs is the file that was exported. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static uint32_t constants[64], start[8];

static uint32_t turn(uint32_t x, int n) { return x >> n | x << (32 - n); }

/* The constants are the first 32 bits of the fractional parts of cube and square roots of the first primes. */
static void prepare(void) {
  int found = 0;
  for (int n = 2; found < 64; n++) {
    int prime = 1;
    for (int d = 2; d * d <= n; d++) prime &= n % d != 0;
    if (!prime) continue;
    double whole;
    constants[found] = (uint32_t)(modf(cbrt(n), &whole) * 4294967296.0);
    if (found < 8) start[found] = (uint32_t)(modf(sqrt(n), &whole) * 4294967296.0);
    found++;
  }
}

static void block(uint32_t state[8], const unsigned char *bytes) {
  uint32_t w[64], s[8];
  for (int i = 0; i < 16; i++)
    w[i] = (uint32_t)bytes[4 * i] << 24 | bytes[4 * i + 1] << 16 | bytes[4 * i + 2] << 8 | bytes[4 * i + 3];
  for (int i = 16; i < 64; i++)
    w[i] = w[i - 16] + w[i - 7] + (turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ w[i - 15] >> 3) +
           (turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ w[i - 2] >> 10);
  memcpy(s, state, sizeof s);
  for (int i = 0; i < 64; i++) {
    uint32_t t1 = s[7] + (turn(s[4], 6) ^ turn(s[4], 11) ^ turn(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) +
                  constants[i] + w[i];
    uint32_t t2 = (turn(s[0], 2) ^ turn(s[0], 13) ^ turn(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
    memmove(s + 1, s, 7 * sizeof *s);
    s[4] += t1;
    s[0] = t1 + t2;
  }
  for (int i = 0; i < 8; i++) state[i] += s[i];
}

/* Writes 64 hexadecimal digits and a zero to hex; returns 0, or -1 when the file cannot be read. */
int sha256_of_file(const char *path, char hex[65]) {
  unsigned char buffer[64];
  uint32_t state[8];
  uint64_t total = 0;
  size_t got;
  FILE *file = fopen(path, "rb");
  if (!file) return -1;
  prepare();
  memcpy(state, start, sizeof state);
  while ((got = fread(buffer, 1, 64, file)) == 64) {
    block(state, buffer);
    total += 64;
  }
  int failed = ferror(file);
  fclose(file);
  if (failed) return -1;
  total += got;
  memset(buffer + got, 0, 64 - got);
  buffer[got] = 0x80;
  if (got >= 56) {
    block(state, buffer);
    memset(buffer, 0, 64);
  }
  for (int i = 0; i < 8; i++) buffer[56 + i] = (unsigned char)(total * 8 >> (56 - 8 * i));
  block(state, buffer);
  for (int i = 0; i < 8; i++) sprintf(hex + 8 * i, "%08x", state[i]);
  return 0;
}
