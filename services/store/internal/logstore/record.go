package logstore

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Every value begins with a header, so that a later release can tell what it reads and can encrypt it:
//
//	byte  0      format of the record, 1 today
//	byte  1      AEAD that sealed the payload; 0: none
//	bytes 2-5    id of the key that sealed it, big-endian; 0: none
//	bytes 6-9    CRC-32C of the record's key, the bytes above and the payload
//	bytes 10-    payload
//
// The key is under the checksum too: a record that turns up under another record's key is as bad as a flipped bit.
const (
	recordFormat = 1
	headerSize   = 10
)

func checksum(key, head, payload []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli) // cached by the library
	sum := crc32.Update(0, table, key)
	sum = crc32.Update(sum, table, head)
	return crc32.Update(sum, table, payload)
}

// seal makes the value for a payload.
func seal(key, payload []byte) []byte {
	out := make([]byte, headerSize, headerSize+len(payload))
	out[0] = recordFormat
	binary.BigEndian.PutUint32(out[6:], checksum(key, out[:6], payload))
	return append(out, payload...)
}

// unseal checks a value and returns its payload, which shares its bytes.
func unseal(key, value []byte) ([]byte, error) {
	if len(value) < headerSize {
		return nil, fmt.Errorf("record %q is cut short: %d bytes", key, len(value))
	}
	if value[0] != recordFormat {
		return nil, fmt.Errorf("record %q has format %d, this release knows %d", key, value[0], recordFormat)
	}
	if value[1] != 0 || binary.BigEndian.Uint32(value[2:]) != 0 {
		return nil, fmt.Errorf("record %q is encrypted (AEAD %d), which this release cannot read", key, value[1])
	}
	payload := value[headerSize:]
	if got, want := checksum(key, value[:6], payload), binary.BigEndian.Uint32(value[6:]); got != want {
		return nil, fmt.Errorf("record %q is damaged: checksum %08x, not %08x", key, got, want)
	}
	return payload, nil
}
