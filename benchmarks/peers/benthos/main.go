// Benthos with its own components and one method: the check of a token, which Benthos itself does not have.
package main

import (
	"context"
	"errors"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
)

var errToken = errors.New("the token is not valid")

func newUserOfToken(args *bloblang.ParsedParams) (bloblang.Method, error) {
	secret, err := args.GetString("secret")
	if err != nil {
		return nil, err
	}
	key := []byte(secret)
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired())
	return bloblang.StringMethod(func(header string) (any, error) {
		token, found := strings.CutPrefix(header, "Bearer ")
		if !found {
			return nil, errToken
		}
		var claims jwt.RegisteredClaims
		_, err := parser.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return key, nil })
		if err != nil || claims.Subject == "" {
			return nil, errToken
		}
		return claims.Subject, nil
	}), nil
}

func main() {
	spec := bloblang.NewPluginSpec().Param(bloblang.NewStringParam("secret"))
	if err := bloblang.RegisterMethodV2("user_of_token", spec, newUserOfToken); err != nil {
		panic(err)
	}
	service.RunCLI(context.Background())
}
