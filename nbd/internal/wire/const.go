// Package wire holds the numbers and the byte layouts of the NBD protocol that server and client share. What go-nbd's
// protocol package names is taken from there; the rest is from the protocol's doc/proto.md.
package wire

import "github.com/pojntfx/go-nbd/pkg/protocol"

// Magic numbers.
const (
	MagicOldstyle    = protocol.NEGOTIATION_MAGIC_OLDSTYLE
	MagicOption      = protocol.NEGOTIATION_MAGIC_OPTION
	MagicOptionReply = protocol.NEGOTIATION_MAGIC_REPLY
	MagicRequest     = protocol.TRANSMISSION_MAGIC_REQUEST
	MagicReply       = protocol.TRANSMISSION_MAGIC_REPLY

	MagicStructuredReply = uint32(0x668e33ef)
	MagicExtendedRequest = uint32(0x21e41c71)
	MagicExtendedReply   = uint32(0x6e8a278c)
)

// Handshake flags of the server, client flags of the client: the same bits.
const (
	FlagFixedNewstyle = protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE
	FlagNoZeroes      = uint16(1 << 1)
)

// Options.
const (
	OptExportName      = uint32(1)
	OptAbort           = protocol.NEGOTIATION_ID_OPTION_ABORT
	OptList            = protocol.NEGOTIATION_ID_OPTION_LIST
	OptStartTLS        = uint32(5)
	OptInfo            = protocol.NEGOTIATION_ID_OPTION_INFO
	OptGo              = protocol.NEGOTIATION_ID_OPTION_GO
	OptStructuredReply = uint32(8)
	OptListMeta        = uint32(9)
	OptSetMeta         = uint32(10)
	OptExtendedHeaders = uint32(11)
)

// Option replies; errors have the top bit.
const (
	RepAck         = protocol.NEGOTIATION_TYPE_REPLY_ACK
	RepServer      = protocol.NEGOTIATION_TYPE_REPLY_SERVER
	RepInfo        = protocol.NEGOTIATION_TYPE_REPLY_INFO
	RepMetaContext = uint32(4)
	RepError       = uint32(1 << 31)
	RepErrUnsup    = protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED
	RepErrPolicy   = RepError | 2
	RepErrInvalid  = RepError | 3
	RepErrPlatform = RepError | 4
	RepErrTLSReqd  = RepError | 5
	RepErrUnknown  = protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN
	RepErrShutdown = RepError | 7
	RepErrTooBig   = RepError | 9
	RepErrExtReqd  = RepError | 10
)

// Kinds of information about an export.
const (
	InfoExport      = protocol.NEGOTIATION_TYPE_INFO_EXPORT
	InfoName        = protocol.NEGOTIATION_TYPE_INFO_NAME
	InfoDescription = protocol.NEGOTIATION_TYPE_INFO_DESCRIPTION
	InfoBlockSize   = protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE
)

// Transmission flags of an export.
const (
	HasFlags        = protocol.NEGOTIATION_REPLY_FLAGS_HAS_FLAGS
	ReadOnly        = uint16(1 << 1)
	SendFlush       = uint16(1 << 2)
	SendFUA         = uint16(1 << 3)
	SendTrim        = uint16(1 << 5)
	SendWriteZeroes = uint16(1 << 6)
	SendDF          = uint16(1 << 7)
	CanMultiConn    = protocol.NEGOTIATION_REPLY_FLAGS_CAN_MULTI_CONN
	SendCache       = uint16(1 << 10)
	SendFastZero    = uint16(1 << 11)
)

// Commands.
const (
	CmdRead        = protocol.TRANSMISSION_TYPE_REQUEST_READ
	CmdWrite       = protocol.TRANSMISSION_TYPE_REQUEST_WRITE
	CmdDisc        = protocol.TRANSMISSION_TYPE_REQUEST_DISC
	CmdFlush       = uint16(3)
	CmdTrim        = uint16(4)
	CmdCache       = uint16(5)
	CmdWriteZeroes = uint16(6)
	CmdBlockStatus = uint16(7)
)

// Command flags.
const (
	CmdFlagFUA        = uint16(1 << 0)
	CmdFlagNoHole     = uint16(1 << 1)
	CmdFlagDF         = uint16(1 << 2)
	CmdFlagReqOne     = uint16(1 << 3)
	CmdFlagFastZero   = uint16(1 << 4)
	CmdFlagPayloadLen = uint16(1 << 5) // extended headers only
)

// Chunks of structured replies; errors have the top bit.
const (
	ChunkFlagDone = uint16(1 << 0)

	ChunkNone           = uint16(0)
	ChunkOffsetData     = uint16(1)
	ChunkOffsetHole     = uint16(2)
	ChunkBlockStatus    = uint16(5)
	ChunkBlockStatusExt = uint16(6)
	ChunkError          = uint16(1<<15 | 1)
	ChunkErrorOffset    = uint16(1<<15 | 2)
)

// The one meta context, and the states that it tells.
const (
	BaseAllocation   = "base:allocation"
	BaseAllocationID = uint32(1)
	StateHole        = uint32(1 << 0)
	StateZero        = uint32(1 << 1)
)

// Limits of spec items 8 and 12.
const (
	// MaxString is the longest string of the protocol.
	MaxString = 4096
	// MaxPayload is the longest payload that is served.
	MaxPayload = 64 << 20
	// MaxConsumed is the longest payload that is refused with the connection still in step.
	MaxConsumed = 128 << 20
	// MaxExtents is the most that one BLOCK_STATUS is told.
	MaxExtents = 1 << 20
)
