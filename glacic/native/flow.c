/* Steps 2 and 3 of road 2, compiled: the bytes of a plain packet become the key of its flow.
 *
 * The same answers as decode() in glacic/learning/packet.py, for what most packets are: TCP or UDP, over IPv4 (with
 * options or without) or over IPv6 without extension headers, and no fragment. Whatever is anything else, or not whole,
 * or not right, is left to that function, which also says what is wrong with it. tests/native holds them together.
 */
#include "road.h"

#include <string.h>

enum { TCP = 6, UDP = 17 };                                                            /* IANA */
enum { IPV4_LENGTH = 20, IPV6_LENGTH = 40, TCP_LENGTH = 20, UDP_LENGTH = 8 };          /* RFC 791, 8200, 9293, 768 */
enum { ANY_FRAGMENT = 0x3fff }; /* "more fragments", or an offset */
enum { FIN = 0x01, SYN = 0x02, RST = 0x04, ACK = 0x10 };

bool decode(const uint8_t *data, size_t size, struct packet *packet)
{
    size_t header, total; /* total 0: what segmentation offload leaves; then the packet goes to the end of the data */

    if (size < IPV4_LENGTH)
        return false;
    if (data[0] >> 4 == 4) {
        header = (size_t)(data[0] & 0x0f) << 2;
        total = be16(data + 2);
        if (header < IPV4_LENGTH || (total && total < header) || be16(data + 6) & ANY_FRAGMENT)
            return false;
        packet->protocol = data[9];
        packet->source = data + 12;
        packet->destination = data + 16;
        packet->address_length = 4;
    } else if (data[0] >> 4 == 6 && size >= IPV6_LENGTH) {
        header = IPV6_LENGTH;
        total = be16(data + 4);
        if (total)
            total += IPV6_LENGTH;
        packet->protocol = data[6];
        packet->source = data + 8;
        packet->destination = data + 24;
        packet->address_length = 16;
    } else {
        return false;
    }
    size_t end = total && total < size ? total : size; /* of what can be read */
    const uint8_t *transport = data + header;
    size_t own;
    packet->first = true;
    packet->ends = false;
    if (packet->protocol == TCP) {
        if (header + TCP_LENGTH > end)
            return false;
        own = (size_t)(transport[12] >> 4) << 2;
        if (own < TCP_LENGTH)
            return false;
        packet->first = (transport[13] & (SYN | ACK | RST | FIN)) == SYN;
        packet->ends = transport[13] & (FIN | RST);
    } else if (packet->protocol == UDP) {
        if (header + UDP_LENGTH > end)
            return false;
        own = be16(transport + 4);
        if (own < UDP_LENGTH)
            return false;
    } else {
        return false;
    }
    if (total && header + own > total)
        return false;
    packet->source_port = (uint16_t)be16(transport);
    packet->port = (uint16_t)be16(transport + 2);
    return true;
}

void make_key(struct key *key, uint32_t policy, uint8_t protocol, uint16_t port, const uint8_t *source,
              size_t source_length, const uint8_t *destination, size_t destination_length)
{
    memset(key, 0, sizeof *key);
    key->policy = policy;
    key->port = port;
    key->protocol = protocol;
    key->source_length = (uint8_t)source_length;
    key->destination_length = (uint8_t)destination_length;
    memcpy(key->source, source, source_length);
    if (destination_length)
        memcpy(key->destination, destination, destination_length);
}
